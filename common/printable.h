#pragma once

#include <string>
#include <string_view>

namespace switchyard {

enum PrintableAs { kWord, kLines };

// `text` as a terminal may be given it: control characters are \xNN, and what is not UTF-8 is
// U+FFFD. kLines leaves ends of lines and tabs as they are.
std::string Printable(std::string_view text, PrintableAs as = kWord);

}  // namespace switchyard
