#include "kernels/cuda/cublas_lt.h"

#include <cublasLt.h>
#include <dlfcn.h>

#include <cstdio>
#include <map>
#include <mutex>
#include <tuple>

#include "kernels/cuda/launch.h"

namespace switchyard::kernels::cuda {
namespace {

// Row counts are rounded up to a multiple of this to choose an algorithm.
constexpr int64_t kRowStep = 64;
constexpr size_t kMostPlans = 1024;
constexpr uint32_t kAlignment = 16;  // of every matrix, as Aligned asks for it

// The functions that are used, by the names of the library.
struct Library {
  decltype(&cublasLtCreate) Create;
  decltype(&cublasLtDestroy) Destroy;
  decltype(&cublasLtGetVersion) GetVersion;
  decltype(&cublasLtMatmul) Matmul;
  decltype(&cublasLtMatmulAlgoGetHeuristic) GetHeuristic;
  decltype(&cublasLtMatmulDescInit_internal) DescInit;
  decltype(&cublasLtMatmulDescSetAttribute) DescSet;
  decltype(&cublasLtMatrixLayoutInit_internal) LayoutInit;
  decltype(&cublasLtMatmulPreferenceInit_internal) PreferenceInit;
  decltype(&cublasLtMatmulPreferenceSetAttribute) PreferenceSet;

  // The library stays open until the process ends: other handles may use it.
  bool Load() {
    void* handle = nullptr;
    char name[64];
    for (const char* directory : {"", "/usr/local/cuda/lib64/"}) {
      for (int major = CUBLAS_VER_MAJOR; handle == nullptr && major >= 12; --major) {
        std::snprintf(name, sizeof(name), "%slibcublasLt.so.%d", directory, major);
        handle = dlopen(name, RTLD_NOW | RTLD_LOCAL);
      }
    }
    if (handle == nullptr) return false;
    bool found = true;
    const auto find = [&](auto& function, const char* symbol) {
      function = reinterpret_cast<std::decay_t<decltype(function)>>(dlsym(handle, symbol));
      found = found && function != nullptr;
    };
    find(Create, "cublasLtCreate");
    find(Destroy, "cublasLtDestroy");
    find(GetVersion, "cublasLtGetVersion");
    find(Matmul, "cublasLtMatmul");
    find(GetHeuristic, "cublasLtMatmulAlgoGetHeuristic");
    find(DescInit, "cublasLtMatmulDescInit_internal");
    find(DescSet, "cublasLtMatmulDescSetAttribute");
    find(LayoutInit, "cublasLtMatrixLayoutInit_internal");
    find(PreferenceInit, "cublasLtMatmulPreferenceInit_internal");
    find(PreferenceSet, "cublasLtMatmulPreferenceSetAttribute");
    return found;
  }
};

int64_t StrideOf(const CublasProduct& p) { return p.out_stride > 0 ? p.out_stride : p.n; }

// Row-major [rows][n] is column-major n x rows, so the weights are the left operand, transposed.
class Problem {
 public:
  Problem(const Library& library, const CublasProduct& p, int64_t rows) : library_(library) {
    const cudaDataType_t in = p.fp8 ? CUDA_R_8F_E4M3 : CUDA_R_16BF;
    const cudaDataType_t out = p.f32 ? CUDA_R_32F : CUDA_R_16BF;
    Keep(library.DescInit(&desc, sizeof(desc), CUBLAS_COMPUTE_32F, CUDA_R_32F));
    Set(CUBLASLT_MATMUL_DESC_TRANSA, CUBLAS_OP_T);
    // Sums of fp8 products may lose bits that the rounding of x has lost already.
    if (p.fp8) Set(CUBLASLT_MATMUL_DESC_FAST_ACCUM, int8_t{1});
    if (p.bias != nullptr) {
      Set(CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
      Set(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, int32_t{CUDA_R_32F});
      Set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, static_cast<const void*>(p.bias));
    }
    Keep(library.LayoutInit(&weights, sizeof(weights), in, p.k, p.n, p.k));
    Keep(library.LayoutInit(&x, sizeof(x), in, p.k, rows, p.k));
    Keep(library.LayoutInit(&result, sizeof(result), out, p.n, rows, StrideOf(p)));
  }

  bool ok() const { return ok_; }

  cublasLtMatmulDescOpaque_t desc;
  cublasLtMatrixLayoutOpaque_t weights, x, result;

 private:
  void Keep(cublasStatus_t status) { ok_ = ok_ && status == CUBLAS_STATUS_SUCCESS; }
  template <class T>
  void Set(cublasLtMatmulDescAttributes_t attribute, T value) {
    Keep(library_.DescSet(&desc, attribute, &value, sizeof(value)));
  }

  const Library& library_;
  bool ok_ = true;
};

class OpenCublasLt final : public CublasLt {
 public:
  ~OpenCublasLt() override {
    if (handle_ != nullptr) library_.Destroy(handle_);
  }

  bool Start() {
    if (!library_.Load()) return false;
    const size_t version = library_.GetVersion();
    std::snprintf(version_, sizeof(version_), "%zu.%zu.%zu", version / 10000, version / 100 % 100,
                  version % 100);
    return true;
  }

  const char* version() const override { return version_; }

  bool Takes(const CublasProduct& p) override {
    if (p.k % (p.fp8 ? 16 : 8) != 0 || p.n % (p.f32 ? 4 : 8) != 0 ||
        StrideOf(p) % (p.f32 ? 4 : 8) != 0 || p.workspace_bytes < kWorkspaceBytes ||
        !Aligned(p.x) || !Aligned(p.w) || !Aligned(p.out) || !Aligned(p.workspace)) {
      return false;
    }
    return PlanOf(p).state == CUBLAS_STATUS_SUCCESS;
  }

  OpError Multiply(const CublasProduct& p, cudaStream_t stream) override {
    const cublasLtMatmulHeuristicResult_t plan = PlanOf(p);
    Problem problem(library_, p, p.rows);
    if (plan.state != CUBLAS_STATUS_SUCCESS || !problem.ok()) return {"no cuBLASLt algorithm"};
    const float alpha = 1, beta = p.accumulate ? 1 : 0;
    const cublasStatus_t status = library_.Matmul(
        handle_, &problem.desc, &alpha, p.w, &problem.weights, p.x, &problem.x, &beta, p.out,
        &problem.result, p.out, &problem.result, &plan.algo, p.workspace, kWorkspaceBytes, stream);
    return {status == CUBLAS_STATUS_SUCCESS ? nullptr : "cuBLASLt could not start a product"};
  }

 private:
  using Key = std::tuple<int64_t, int64_t, int64_t, int64_t, bool, bool, bool, bool>;

  cublasLtMatmulHeuristicResult_t PlanOf(const CublasProduct& p) {
    const int64_t rows = (p.rows + kRowStep - 1) / kRowStep * kRowStep;
    const Key key = {rows, p.n, p.k, StrideOf(p), p.accumulate, p.f32, p.fp8, p.bias != nullptr};
    const std::lock_guard<std::mutex> lock(mutex_);
    // A handle makes a context, which costs memory: not before the first product.
    if (handle_ == nullptr && library_.Create(&handle_) != CUBLAS_STATUS_SUCCESS) {
      handle_ = nullptr;  // not a plan to keep: it is tried again
      cublasLtMatmulHeuristicResult_t none = {};
      none.state = CUBLAS_STATUS_NOT_SUPPORTED;
      return none;
    }
    const auto found = plans_.find(key);
    if (found != plans_.end()) return found->second;
    if (plans_.size() >= kMostPlans) plans_.clear();
    return plans_[key] = Choose(p, rows);
  }

  cublasLtMatmulHeuristicResult_t Choose(const CublasProduct& p, int64_t rows) {
    cublasLtMatmulHeuristicResult_t result = {};
    result.state = CUBLAS_STATUS_NOT_SUPPORTED;
    Problem problem(library_, p, rows);
    cublasLtMatmulPreferenceOpaque_t preference;
    bool ok = problem.ok() &&
              library_.PreferenceInit(&preference, sizeof(preference)) == CUBLAS_STATUS_SUCCESS;
    const auto set = [&](cublasLtMatmulPreferenceAttributes_t attribute, auto value) {
      ok = ok && library_.PreferenceSet(&preference, attribute, &value, sizeof(value)) ==
                     CUBLAS_STATUS_SUCCESS;
    };
    set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, uint64_t{kWorkspaceBytes});
    set(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
        uint32_t{CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE});
    for (const auto attribute :
         {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
          CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES}) {
      set(attribute, kAlignment);
    }
    int found = 0;
    cublasLtMatmulHeuristicResult_t best = {};
    if (ok &&
        library_.GetHeuristic(handle_, &problem.desc, &problem.weights, &problem.x, &problem.result,
                              &problem.result, &preference, 1, &best,
                              &found) == CUBLAS_STATUS_SUCCESS &&
        found == 1) {
      result = best;
    }
    return result;
  }

  Library library_ = {};
  cublasLtHandle_t handle_ = nullptr;
  char version_[32] = "";
  std::mutex mutex_;
  std::map<Key, cublasLtMatmulHeuristicResult_t> plans_;
};

}  // namespace

std::unique_ptr<CublasLt> CublasLt::Open() {
  auto library = std::make_unique<OpenCublasLt>();
  if (!library->Start()) return nullptr;
  return library;
}

}  // namespace switchyard::kernels::cuda
