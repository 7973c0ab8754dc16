#include "worker/landlock.h"

#include <fcntl.h>
#include <linux/landlock.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "common/unique_fd.h"

namespace switchyard::worker {
namespace {

// What later versions of the interface added; Debian 12's header ends with version 2.
constexpr uint64_t kTruncate = 1ULL << 14;          // 3
constexpr uint64_t kIoctlDevice = 1ULL << 15;       // 5
constexpr uint64_t kTcpBindAndConnect = 3;          // 4
constexpr uint64_t kAbstractSocketsAndSignals = 3;  // 6

struct RulesetAttributes {  // landlock_ruleset_attr of version 6; an older kernel takes a prefix
  uint64_t handled_access_fs;
  uint64_t handled_access_net;
  uint64_t scoped;
};

constexpr uint64_t kReadFile = LANDLOCK_ACCESS_FS_READ_FILE;
constexpr uint64_t kReadDirectory = LANDLOCK_ACCESS_FS_READ_DIR;
constexpr uint64_t kOfFiles = LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_WRITE_FILE |
                              LANDLOCK_ACCESS_FS_READ_FILE | kTruncate | kIoctlDevice;

size_t AttributeBytes(int abi) {
  if (abi >= 6) return sizeof(RulesetAttributes);
  return abi >= 4 ? 2 * sizeof(uint64_t) : sizeof(uint64_t);
}

absl::StatusOr<UniqueFd> NewRuleset(int abi) {
  const LandlockRights handled = HandledRights(abi);
  const RulesetAttributes attributes{handled.files, handled.network, handled.scopes};
  UniqueFd ruleset(static_cast<int>(
      ::syscall(SYS_landlock_create_ruleset, &attributes, AttributeBytes(abi), 0)));
  if (!ruleset.valid()) return ErrnoStatus("landlock_create_ruleset");
  return ruleset;
}

absl::Status AddRule(int ruleset, const PathRule& rule, int abi) {
  const UniqueFd place(::open(rule.path.c_str(), O_PATH | O_CLOEXEC));
  struct stat info {};
  if (!place.valid() && (errno == ENOENT || errno == ENOTDIR)) return absl::OkStatus();
  if (!place.valid() || ::fstat(place.get(), &info) != 0) return ErrnoStatus(rule.path.c_str());
  landlock_path_beneath_attr beneath{};
  beneath.allowed_access = AllowedRights(rule.use, S_ISDIR(info.st_mode), abi);
  beneath.parent_fd = place.get();
  if (::syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &beneath, 0) == 0) {
    return absl::OkStatus();
  }
  return ErrnoStatus(absl::StrCat("landlock_add_rule for ", rule.path).c_str());
}

}  // namespace

LandlockRights HandledRights(int abi) {
  LandlockRights rights;
  if (abi < 1) return rights;
  rights.files = LANDLOCK_ACCESS_FS_MAKE_SYM * 2 - 1;  // version 1: all bits up to this one
  if (abi >= 2) rights.files |= LANDLOCK_ACCESS_FS_REFER;
  if (abi >= 3) rights.files |= kTruncate;
  if (abi >= 4) rights.network = kTcpBindAndConnect;
  if (abi >= 5) rights.files |= kIoctlDevice;
  if (abi >= 6) rights.scopes = kAbstractSocketsAndSignals;
  return rights;
}

uint64_t AllowedRights(PathUse use, bool directory, int abi) {
  uint64_t rights = kReadFile | kReadDirectory;
  if (use == PathUse::kKeep) {
    rights |= LANDLOCK_ACCESS_FS_WRITE_FILE | kTruncate | LANDLOCK_ACCESS_FS_MAKE_REG |
              LANDLOCK_ACCESS_FS_REMOVE_FILE | LANDLOCK_ACCESS_FS_MAKE_DIR |
              LANDLOCK_ACCESS_FS_REMOVE_DIR;
  } else if (use == PathUse::kDevice) {
    rights |= LANDLOCK_ACCESS_FS_WRITE_FILE | kIoctlDevice;
  } else if (use == PathUse::kOwn) {
    rights |= LANDLOCK_ACCESS_FS_WRITE_FILE | kTruncate;
  }
  return rights & HandledRights(abi).files & (directory ? ~uint64_t{0} : kOfFiles);
}

absl::StatusOr<int> LandlockVersion() {
  const long version =
      ::syscall(SYS_landlock_create_ruleset, nullptr, 0, LANDLOCK_CREATE_RULESET_VERSION);
  if (version >= 1) return static_cast<int>(version);
  if (version < 0 && errno != ENOSYS && errno != EOPNOTSUPP) return ErrnoStatus("Landlock");
  return absl::UnimplementedError("this kernel has no Landlock, or it is turned off");
}

absl::StatusOr<Confinement> Confine(const std::vector<PathRule>& rules) {
  Confinement confinement;
  ASSIGN_OR_RETURN(const int abi, LandlockVersion());
  ASSIGN_OR_RETURN(const UniqueFd ruleset, NewRuleset(abi));
  confinement.version = abi;
  for (const PathRule& rule : rules) {
    const absl::Status added = AddRule(ruleset.get(), rule, abi);
    if (added.ok()) continue;
    if (rule.needed) return absl::FailedPreconditionError(added.message());
    confinement.left_out.push_back(std::string(added.message()));
  }
  if (::syscall(SYS_landlock_restrict_self, ruleset.get(), 0) != 0) {
    return ErrnoStatus("landlock_restrict_self");
  }
  return confinement;
}

}  // namespace switchyard::worker
