#pragma once

// The op set: everything that a forward pass asks of a device, at the grain that a GPU wants. Raw
// pointers, sizes and a stream; no tensor class, no allocation after construction, no logging.
//
// Made for graph capture: what changes from step to step (tokens, positions, block tables, lengths,
// random counters) is read through device pointers; host arguments are constant per captured shape.
//
// Notation: T rows of this step, S sequences, H hidden size, Hq / Hkv query and key-value heads, D
// head size, I intermediate size, E experts, K experts chosen per token, V vocabulary, R logit
// rows. `act` is the backend's activation type: float on the CPU, bf16 on a GPU (float
// accumulation).
//
// On the CPU no row of any result depends, in any bit, on what other rows are in the batch, on how
// a prompt was cut into chunks, or on the number of threads. On a GPU that is an option.

#include <cstdint>
#include <memory>

namespace switchyard::kernels {

// A cudaStream_t. On the CPU null: an op has finished when it returns.
using Stream = void*;

enum class DType : uint8_t {
  kF32,
  kBF16,
  kF16,
  kF8E4M3,  // one byte a weight
  kInt4,    // unsigned, eight weights a 32-bit word along k (see Matrix)
  kMxfp4,   // e2m1 (OCP Microscaling), eight a word likewise
};
// Bytes of `count` elements (count even for the 4-bit types), without scales.
int64_t DTypeBytes(DType type, int64_t count);
const char* DTypeName(DType type);

// Why an op was not run. A message is a string constant.
struct [[nodiscard]] OpError {
  const char* message = nullptr;
  bool ok() const { return message == nullptr; }
};

// A weight matrix as it lies in the image: data[batch][n][k], row-major, n output features. batch
// is 1 but for experts. Data, scales and zeros start at multiples of 256 bytes; what follows them
// up to a multiple of 16 bytes may be read.
//
// Quantized, w is data times scale, for a weight in row r and column c:
//   kF8E4M3  scales f32: [batch][n] where group is 0; [batch][ceil(n/128)][ceil(k/128)] where group
//            is 128 (blocks of 128 x 128).
//   kInt4    w = (data - zero) * scale; scales f16 [batch][n][k/group]; zeros u8 likewise, null: 8.
//            k is a multiple of group, and group of 32.
//   kMxfp4   scales e8m0 (a biased exponent: 2^(s - 127)), u8 [batch][n][k/32]; group is 32.
// The 4-bit types keep columns 8i..8i+7 in the little-endian 32-bit word i, so that masking it with
// 0x000f000f after shifts by 0, 4, 8 and 12 yields the column pairs (0,1), (2,3), (4,5), (6,7):
// from the lowest nibble up the columns are 0 2 4 6 1 3 5 7.
struct Matrix {
  const void* data = nullptr;
  DType dtype = DType::kBF16;
  int64_t n = 0;
  int64_t k = 0;
  int64_t batch = 1;
  const void* scales = nullptr;
  const void* zeros = nullptr;
  int32_t group = 0;
};

// The rows of one step, on the device. Rows of one sequence are consecutive and in order of
// position. A sequence lives in a slot: a row of the token and block tables.
struct StepRows {
  int32_t rows = 0;                        // T
  int32_t sequences = 0;                   // S
  int32_t longest = 0;                     // most rows of one sequence
  const int32_t* slot = nullptr;           // [T]; -1: padding, its results are not defined
  const int32_t* position = nullptr;       // [T]
  const int32_t* sequence_slot = nullptr;  // [S]
  const int32_t* sequence_row = nullptr;   // [S + 1] first row of each; [S] is T
  // [S] positions with KV once this step has written its own
  const int32_t* sequence_length = nullptr;
};

// Token ids of every slot, on the device: prompt, then output. Sample writes what Embed reads, so a
// step can be launched before the host has seen the tokens of the one before.
struct TokenTable {
  int32_t* ids = nullptr;  // [slots][stride]
  int32_t stride = 0;
};

// One layer's view of its group's paged KV pool. Block b's keys of this layer are
// [Hkv][block_tokens][D] at base + b * block_bytes + key_offset; values likewise at value_offset.
struct KvView {
  void* base = nullptr;
  const int32_t* table = nullptr;  // [slots][table_stride]: block of position p at p / block_tokens
  int32_t table_stride = 0;
  int32_t block_tokens = 0;
  int64_t block_bytes = 0;
  int64_t key_offset = 0;
  int64_t value_offset = 0;
  DType dtype = DType::kF32;  // the backend's activation type, or kF8E4M3 without scales
};

// Rotary embedding of the first `dim` elements of a head, in pairs (i, i + dim/2) (Su et al. 2021;
// scaled variants only change inv_freq and scale).
struct Rope {
  const float* inv_freq = nullptr;  // [dim / 2], on the device
  int32_t dim = 0;                  // 0: none
  float scale = 1.0f;               // times both cosine and sine (yarn's attention factor)
};

struct Scratch {
  void* data = nullptr;  // at least Ops::ScratchBytes of the largest shape; overwritten by every op
  int64_t bytes = 0;
};

enum class Activation : uint8_t {
  kSilu,      // silu(gate) * up
  kGeluTanh,  // gelu_tanh(gate) * up
  // gate = min(gate, 7), up = clamp(up, -7, 7): (up + 1) * gate * sigmoid(1.702 gate)
  kSwigluClamped,
};

enum class Routing : uint8_t {
  kSoftmaxTopK,    // softmax over all experts, then the K largest; renormalized if `normalize`
  kTopKSoftmax,    // the K largest logits, softmax over those
  kSigmoidGroups,  // DeepSeek-V3: sigmoid; chosen by score + correction within the best groups (a
                   // group's score is the sum of its two best); weighed by score, renormalized if
                   // `normalize` (sum + 1e-20), times `scale`
};

struct EmbedArgs {
  StepRows rows;
  TokenTable tokens;
  Matrix table;  // [V][H]
  float scale = 1.0f;
  void* out = nullptr;  // act [T][H]
};

// out: q = rope(norm_q(Wq norm(x) + bq)) as act [T][Hq][D]; k likewise and v go to the KV pool at
// each row's position.
struct AttentionInputArgs {
  StepRows rows;
  const void* x = nullptr;      // act [T][H]
  const float* norm = nullptr;  // [H]
  float eps = 0;
  Matrix qkv;                     // [(Hq + 2 Hkv) D][H]: q heads, k heads, v heads
  const float* bias = nullptr;    // [(Hq + 2 Hkv) D] or null
  const float* q_norm = nullptr;  // [D] or null
  const float* k_norm = nullptr;  // [D] or null
  int32_t q_heads = 0, kv_heads = 0, head_dim = 0;
  Rope rope;
  KvView kv;
  void* q = nullptr;  // act [T][Hq][D]
};

// Causal attention of every row over its sequence's KV: keys j with position - window < j <=
// position. With a sink, one more logit takes part in the softmax and its probability is dropped.
struct AttentionArgs {
  StepRows rows;
  const void* q = nullptr;  // act [T][Hq][D]
  int32_t q_heads = 0, kv_heads = 0, head_dim = 0;
  float scale = 0;               // of the scores
  int32_t window = 0;            // 0: none
  const float* sinks = nullptr;  // [Hq] or null
  KvView kv;
  void* out = nullptr;  // act [T][Hq][D]
};

// out = W x + bias, or out += that (the residual connection).
struct LinearArgs {
  int32_t rows = 0;
  const void* x = nullptr;      // act [rows][k]
  Matrix w;                     // [n][k]
  const float* bias = nullptr;  // [n] or null
  bool accumulate = false;
  void* out = nullptr;  // act [rows][n]
};

// residual += norm(x): the post-norms of Gemma.
struct PostNormAddArgs {
  int32_t rows = 0;
  int32_t width = 0;
  const void* x = nullptr;      // act [rows][width]
  const float* norm = nullptr;  // [width]
  float eps = 0;
  void* residual = nullptr;  // act [rows][width]
};

// out = activation(Wg norm(x), Wu norm(x)).
struct MlpInputArgs {
  int32_t rows = 0;
  const void* x = nullptr;      // act [rows][H]
  const float* norm = nullptr;  // [H]; null: x is normed already
  float eps = 0;
  Matrix gate_up;               // [2 I][H]: gate rows, then up rows
  const float* bias = nullptr;  // [2 I] or null
  Activation activation = Activation::kSilu;
  void* out = nullptr;  // act [rows][I]
};

inline constexpr int32_t kMaxExpertGroups = 256;

struct MoeRouteArgs {
  int32_t rows = 0;
  const void* x = nullptr;      // act [rows][H]
  const float* norm = nullptr;  // [H]
  float eps = 0;
  Matrix router;                      // [E][H]
  const float* bias = nullptr;        // [E] or null: added to the logits
  const float* correction = nullptr;  // [E] or null: kSigmoidGroups
  Routing routing = Routing::kSoftmaxTopK;
  int32_t chosen = 0;                   // K
  int32_t groups = 1, best_groups = 1;  // groups: at most kMaxExpertGroups
  bool normalize = false;
  float scale = 1.0f;
  void* normed = nullptr;    // act [rows][H]: norm(x)
  int32_t* ids = nullptr;    // [rows][K], best first
  float* weights = nullptr;  // [rows][K]
};

// out (+)= sum over the K chosen experts of weight * (down_e activation(gate_up_e x)), added in the
// order of ids (of one row, on a GPU that need not be batch-invariant, in one that the shape
// decides), whatever else is in the batch; then the shared expert's, which every row takes.
struct MoeExpertsArgs {
  int32_t rows = 0;
  const void* x = nullptr;              // act [rows][H]
  const int32_t* ids = nullptr;         // [rows][K]
  const float* weights = nullptr;       // [rows][K]
  int32_t chosen = 0;                   // K
  Matrix gate_up;                       // [E][2 I][H]
  const float* gate_up_bias = nullptr;  // [E][2 I] or null
  Matrix down;                          // [E][H][I]
  const float* down_bias = nullptr;     // [E][H] or null
  Matrix shared_gate_up;                // [2 Is][H]; without data: no shared expert
  Matrix shared_down;                   // [H][Is]
  void* shared_inner = nullptr;         // act [rows][Is] of a shared expert, may be overwritten
  Activation activation = Activation::kSilu;
  bool accumulate = false;
  void* out = nullptr;  // act [rows][H]
};

// logits = W norm(x[row]) for the R rows that are asked for.
struct HeadArgs {
  int32_t count = 0;             // R, at most the tile that the scratch was sized for
  const int32_t* row = nullptr;  // [R] index into the T rows
  const void* x = nullptr;       // act [T][H]
  const float* norm = nullptr;   // [H]
  float eps = 0;
  Matrix w;                 // [V][H]
  float softcap = 0;        // c > 0: c * tanh(logits / c)
  float* logits = nullptr;  // [R][V]
};

// How to draw one token. On the device.
struct SamplingRow {
  int32_t slot = 0;
  int32_t position = 0;       // of the row; the token goes to position + 1
  int32_t draw = 1;           // 0: this row wants log-probabilities only
  int32_t prompt_length = 0;  // penalties tell prompt and output apart by it
  float temperature = 1;      // 0: greedy, lowest id wins a tie
  int32_t top_k = 0;          // 0: off
  float top_p = 1;
  float min_p = 0;
  float repetition_penalty = 1;
  float presence_penalty = 0;
  float frequency_penalty = 0;
  uint32_t padding = 0;
  uint64_t seed = 0;  // noise is a function of (seed, position + 1, token id) alone
};

// What Sample gives in place of a token of a row whose logits are no answer: one of them is NaN, or
// the largest is not finite. That is said of the logits as they are, so nothing that a row asks for
// brings it about.
inline constexpr int32_t kNotNumbers = -2;

// In this order: penalties (a score stays within the range of a float), temperature, top-k, top-p,
// min-p, then the largest of logit + Gumbel noise (Philox 4x32-10). The logits stay as they are, so
// that Logprobs can follow. Where they are no answer, the token table gets 0: a step may read it
// before the host has seen the ids.
struct SampleArgs {
  int32_t count = 0;  // R
  int32_t vocabulary = 0;
  const float* logits = nullptr;      // [R][V]
  const SamplingRow* rows = nullptr;  // [R]
  TokenTable tokens;
  int32_t* ids = nullptr;  // [R] the token drawn, or kNotNumbers; -1 where draw is 0
};

// Log-probabilities (of the logits as they are) of the token at position + 1 of each row, and of
// the `top` best. For a prompt row that is the next prompt token, for a drawn row what Sample
// wrote. NaN, and -1 for the ids, of a row whose logits are no answer (see kNotNumbers), and of no
// other whose token is one of the vocabulary.
struct LogprobArgs {
  int32_t count = 0;  // R
  int32_t vocabulary = 0;
  const float* logits = nullptr;      // [R][V]
  const SamplingRow* rows = nullptr;  // [R]
  TokenTable tokens;
  int32_t top = 0;                // at most 20
  float* logprob = nullptr;       // [R]
  int32_t* top_ids = nullptr;     // [R][top], best first
  float* top_logprobs = nullptr;  // [R][top]
};

// The shapes that scratch is sized for.
struct ScratchShape {
  int32_t rows = 0;        // most rows of a step
  int32_t sequences = 0;   // most sequences of a step
  int32_t logit_rows = 0;  // rows of a logit tile
  int32_t hidden = 0, q_heads = 0, kv_heads = 0, head_dim = 0;
  int32_t intermediate = 0;  // of the widest dense MLP
  int32_t experts = 0, chosen = 0, expert_intermediate = 0;
  int32_t vocabulary = 0;
  int32_t context = 0;     // longest sequence
  bool quantized = false;  // some matrix besides experts' is
};

class Ops {
 public:
  virtual ~Ops() = default;
  virtual DType activation() const = 0;
  // Version of the library that computes products of many rows; empty: our own kernels do.
  virtual const char* matrix_library() const { return ""; }
  virtual int64_t ScratchBytes(const ScratchShape& shape) const = 0;

  virtual OpError Embed(const EmbedArgs& args, Scratch scratch, Stream stream) = 0;
  virtual OpError AttentionInput(const AttentionInputArgs& args, Scratch scratch,
                                 Stream stream) = 0;
  virtual OpError Attention(const AttentionArgs& args, Scratch scratch, Stream stream) = 0;
  virtual OpError Linear(const LinearArgs& args, Scratch scratch, Stream stream) = 0;
  virtual OpError PostNormAdd(const PostNormAddArgs& args, Scratch scratch, Stream stream) = 0;
  virtual OpError MlpInput(const MlpInputArgs& args, Scratch scratch, Stream stream) = 0;
  virtual OpError MoeRoute(const MoeRouteArgs& args, Scratch scratch, Stream stream) = 0;
  virtual OpError MoeExperts(const MoeExpertsArgs& args, Scratch scratch, Stream stream) = 0;
  virtual OpError Head(const HeadArgs& args, Scratch scratch, Stream stream) = 0;
  virtual OpError Sample(const SampleArgs& args, Scratch scratch, Stream stream) = 0;
  virtual OpError Logprobs(const LogprobArgs& args, Scratch scratch, Stream stream) = 0;
};

// threads: at least 1, among them the one that calls.
std::unique_ptr<Ops> MakeCpuOps(int threads);

// On the current CUDA device; only where the build has CUDA (SWITCHYARD_CUDA). Null, with the
// reason in `error` unless that is null, where there is no device of compute capability 8.0 or
// later.
struct CudaOptions {
  bool programmatic_launch = true;  // kernels begin while the one before ends, where a GPU can
  bool cublas = true;               // use cuBLASLt if the machine has it
  // Not 0: touches no device; good for ScratchBytes, which holds for every GPU of at most so many
  // multiprocessors.
  int32_t plan_multiprocessors = 0;
  // The bits of a row depend on that row and the keys that it sees alone: not on what else is in
  // the step, nor on how its sequence was cut into steps. Without cuBLASLt, whatever `cublas` says.
  bool batch_invariant = false;
  // Products of more rows than a decode step has round activations to fp8 where weights are fp8
  // with a scale per row. Refused without cuBLASLt, and below capability 8.9.
  bool fast_prefill = false;
  // Major * 10 + minor of the compute capability whose variants run; 0: the device's own.
  int32_t capability = 0;
};
std::unique_ptr<Ops> MakeCudaOps(const CudaOptions& options, OpError* error);

}  // namespace switchyard::kernels
