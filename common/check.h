#pragma once

namespace switchyard {

// Prints the place and the message, then aborts. For broken invariants of ours only: never for
// input, configuration or anything else that comes from outside.
[[noreturn]] void CheckFailed(const char* file, int line, const char* what);

}  // namespace switchyard

// Always on.
#define SY_CHECK(cond) ((cond) ? (void)0 : ::switchyard::CheckFailed(__FILE__, __LINE__, #cond))

// On in every build that is tested (SWITCHYARD_ASSERTIONS), off in release.
#ifdef SWITCHYARD_ASSERTIONS
#define SY_ASSERT(cond) SY_CHECK(cond)
#else
#define SY_ASSERT(cond) (void)sizeof(!(cond))
#endif
