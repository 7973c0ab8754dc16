#pragma once

#include "absl/status/status.h"

namespace switchyard {

// The seals of a master's memfd, which are what tells a complete one from any other: whoever filled
// the whole of it sets them, and from then on it does not shrink or grow, and no mapping or call
// yet to come writes to it. (Those who have it mapped writable already could go on.)
absl::Status SealMaster(int fd);
// Whether `fd` is a memfd that has been sealed so.
bool IsSealedMaster(int fd);

}  // namespace switchyard
