#pragma once

#include <string_view>

namespace switchyard::cli {

// Standard output, which may be a full disk or closed. What could not be written is told once, at
// the end.

// To be called first, with main()'s argv. A standard descriptor that was closed would be the first
// file or socket that is opened, and be written to as if it were the standard one: the program
// begins again with a descriptor there that fails.
void HoldStandardDescriptors(char** argv);

// Writes and flushes. False once a write has failed: whoever streams stops.
bool Print(std::string_view text);
bool OutputFailed();

// `code`, or 1 and a complaint if something was not written.
int FinishOutput(int code);

}  // namespace switchyard::cli
