#pragma once

#include <string_view>

namespace switchyard {

// What a model may be called; names are part of paths and of the command line.
inline constexpr char kModelNamePattern[] = "[A-Za-z0-9][A-Za-z0-9._-]{0,63}";
bool ValidModelName(std::string_view name);

}  // namespace switchyard
