#include "worker/device/cpu_arena.h"

#include <sys/mman.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "common/available_memory.h"
#include "common/check.h"
#include "common/checked.h"
#include "common/human.h"
#include "common/status_macros.h"

namespace switchyard::worker {
namespace {

constexpr uint64_t kHugePage = 2 << 20;

}  // namespace

absl::StatusOr<std::unique_ptr<CpuArena>> CpuArena::Reserve(uint64_t bytes) {
  bytes = RoundUp(bytes == 0 ? 1 : bytes, kHugePage);
  const uint64_t mapping_bytes = bytes + kHugePage;
  void* mapping =
      mmap(nullptr, mapping_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapping == MAP_FAILED) {
    return absl::ResourceExhaustedError(
        absl::StrCat("cannot reserve ", HumanBytes(bytes), " of address space: ", strerror(errno)));
  }
  auto* base =
      reinterpret_cast<std::byte*>(RoundUp(reinterpret_cast<uintptr_t>(mapping), kHugePage));
  madvise(base, bytes, MADV_HUGEPAGE);  // advice: kernels without huge pages go on with small ones
  return std::unique_ptr<CpuArena>(new CpuArena(mapping, mapping_bytes, base, bytes));
}

CpuArena::~CpuArena() { munmap(mapping_, mapping_bytes_); }

absl::Status CpuArena::Commit(uint64_t offset, uint64_t bytes) {
  SY_CHECK(offset % kCpuPageBytes == 0 && bytes % kCpuPageBytes == 0 && offset + bytes <= bytes_);
  RETURN_IF_ERROR(CheckHostHas(bytes));
  if (mprotect(base_ + offset, bytes, PROT_READ | PROT_WRITE) != 0) {
    return absl::ResourceExhaustedError(
        absl::StrCat("cannot commit ", HumanBytes(bytes), ": ", strerror(errno)));
  }
  committed_ += bytes;
  return absl::OkStatus();
}

absl::Status CpuArena::Release(uint64_t offset, uint64_t bytes) {
  SY_CHECK(offset % kCpuPageBytes == 0 && bytes % kCpuPageBytes == 0 && offset + bytes <= bytes_);
  SY_CHECK(bytes <= committed_);
  // No access first: a stray touch is then a fault, and not a page that nobody accounts for.
  if (mprotect(base_ + offset, bytes, PROT_NONE) != 0 ||
      madvise(base_ + offset, bytes, MADV_DONTNEED) != 0) {
    return absl::InternalError(
        absl::StrCat("cannot release ", HumanBytes(bytes), ": ", strerror(errno)));
  }
  committed_ -= bytes;
  return absl::OkStatus();
}

}  // namespace switchyard::worker
