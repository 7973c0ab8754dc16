#include "worker/tokenizer/oniguruma.h"

#include <algorithm>
#include <cctype>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "worker/tokenizer/utf8.h"

namespace switchyard::worker::tokenizer {
namespace {

// Members of character classes. White space is the property White_Space: PCRE2's own \s has U+180E
// too. A word character is Alphabetic, a mark, a decimal digit or a connector (and, in Oniguruma,
// outside of classes, the raised digits and fractions of Latin-1), where PCRE2's \w lacks marks.
constexpr char kSpace[] =
    "\\t-\\r "
    "\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}";
constexpr char kNotSpace[] =
    "\\x{0}-\\x{8}\\x{e}-\\x{1f}\\x{21}-\\x{84}\\x{86}-\\x{9f}\\x{a1}-\\x{167f}\\x{1681}-\\x{1fff}"
    "\\x{200b}-\\x{2027}\\x{202a}-\\x{202e}\\x{2030}-\\x{205e}\\x{2060}-\\x{2fff}"
    "\\x{3001}-\\x{d7ff}\\x{e000}-\\x{10ffff}";
constexpr char kWord[] = "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}";
constexpr char kWordInClass[] = "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}";
constexpr char kHex[] = "0-9A-Fa-f";

constexpr std::pair<std::string_view, std::string_view> kLongNames[] = {
    {"alpha", "Alphabetic"},
    {"cased_letter", "L&"},
    {"close_punctuation", "Pe"},
    {"connector_punctuation", "Pc"},
    {"control", "Cc"},
    {"currency_symbol", "Sc"},
    {"dash_punctuation", "Pd"},
    {"decimal_number", "Nd"},
    {"digit", "Nd"},
    {"enclosing_mark", "Me"},
    {"final_punctuation", "Pf"},
    {"format", "Cf"},
    {"initial_punctuation", "Pi"},
    {"letter", "L"},
    {"letter_number", "Nl"},
    {"line_separator", "Zl"},
    {"lower", "Lowercase"},
    {"lowercase_letter", "Ll"},
    {"mark", "M"},
    {"math_symbol", "Sm"},
    {"modifier_letter", "Lm"},
    {"modifier_symbol", "Sk"},
    {"nonspacing_mark", "Mn"},
    {"number", "N"},
    {"open_punctuation", "Ps"},
    {"other", "C"},
    {"other_letter", "Lo"},
    {"other_number", "No"},
    {"other_punctuation", "Po"},
    {"other_symbol", "So"},
    {"paragraph_separator", "Zp"},
    {"private_use", "Co"},
    {"punctuation", "P"},
    {"separator", "Z"},
    {"space", "White_Space"},
    {"space_separator", "Zs"},
    {"spacing_mark", "Mc"},
    {"symbol", "S"},
    {"titlecase_letter", "Lt"},
    {"unassigned", "Cn"},
    {"upper", "Uppercase"},
    {"uppercase_letter", "Lu"},
};

// Names that are no script; every other name is taken for one ("sc:": since 10.40 PCRE2 would
// otherwise mean the script's extensions as well).
constexpr std::string_view kProperties[] = {
    "Alphabetic", "Lowercase", "Uppercase", "White_Space", "Any", "Emoji", "Extended_Pictographic",
    "Ideographic"};

// What stands for an escape, by its letter.
using Escapes = std::map<char, std::string>;

// The same inside and outside a class.
const Escapes& CommonEscapes() {
  static const Escapes table = {{'d', "\\p{Nd}"}, {'D', "\\P{Nd}"}, {'t', "\\t"}, {'n', "\\n"},
                                {'r', "\\r"},     {'f', "\\f"},     {'a', "\\a"}, {'e', "\\e"},
                                {'v', "\\x{b}"},  {'0', "\\x{0}"}};
  return table;
}

const Escapes& PlainEscapes() {
  static const std::string word = absl::StrCat("[", kWord, "]");
  static const Escapes table = {
      {'s', absl::StrCat("[", kSpace, "]")},
      {'S', absl::StrCat("[^", kSpace, "]")},
      {'w', word},
      {'W', absl::StrCat("[^", kWord, "]")},
      {'h', absl::StrCat("[", kHex, "]")},
      {'H', absl::StrCat("[^", kHex, "]")},
      {'b', absl::StrCat("(?:(?<=", word, ")(?!", word, ")|(?<!", word, ")(?=", word, "))")},
      {'B', absl::StrCat("(?:(?<=", word, ")(?=", word, ")|(?<!", word, ")(?!", word, "))")}};
  return table;
}

const Escapes& ClassEscapes() {
  static const Escapes table = {
      {'s', kSpace}, {'S', kNotSpace}, {'w', kWordInClass}, {'h', kHex}, {'b', "\\x{8}"}};
  return table;
}

absl::Status Unsupported(std::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("\"", ValidUtf8(what), "\" is not supported"));
}

class Translator {
 public:
  explicit Translator(std::string_view pattern) : in_(pattern) {}

  absl::StatusOr<std::string> Run() {
    while (pos_ < in_.size()) RETURN_IF_ERROR(Next());
    return std::move(out_);
  }

 private:
  bool More() const { return pos_ < in_.size(); }
  bool Eat(std::string_view what) {
    if (in_.substr(pos_, what.size()) != what) return false;
    pos_ += what.size();
    return true;
  }
  void BeginAtom() { atom_ = out_.size(); }

  // One construct of the pattern outside a character class.
  absl::Status Next() {
    switch (in_[pos_]) {
      case '\\':
        return Escape();
      case '[':
        BeginAtom();
        return Class();
      case '(':
        return OpenGroup();
      case ')':
        if (!groups_.empty()) {
          atom_ = groups_.back();
          groups_.pop_back();
        }
        out_ += in_[pos_++];
        return absl::OkStatus();
      case '*':
      case '+':
      case '?':
        out_ += in_[pos_++];
        if (More() && (in_[pos_] == '?' || in_[pos_] == '+')) out_ += in_[pos_++];
        return absl::OkStatus();
      case '{':
        Interval();
        return absl::OkStatus();
      default:
        BeginAtom();
        Literal();
        return absl::OkStatus();
    }
  }

  void Literal() {
    const size_t start = pos_;
    DecodeUtf8(in_, &pos_);
    out_ += in_.substr(start, pos_ - start);
  }

  std::optional<uint32_t> Number() {
    size_t start = pos_;
    uint32_t value = 0;
    while (More() && std::isdigit(static_cast<unsigned char>(in_[pos_])) && pos_ - start < 6) {
      value = value * 10 + static_cast<uint32_t>(in_[pos_++] - '0');
    }
    return pos_ == start ? std::nullopt : std::optional<uint32_t>(value);
  }

  // {n} {n,} {,m} {n,m}; anything else is literal text.
  void Interval() {
    const size_t start = pos_++;
    std::optional<uint32_t> low = Number(), high;
    const bool comma = Eat(",");
    if (comma) high = Number();
    if ((!low && !high) || !Eat("}")) {
      pos_ = start + 1;
      BeginAtom();
      out_ += "\\{";
      return;
    }
    std::string counts = absl::StrCat("{", low.value_or(0));
    if (comma) absl::StrAppend(&counts, ",", high ? absl::StrCat(*high) : std::string());
    counts += "}";
    // A plus after an interval repeats it, as does a question mark after a fixed count.
    const bool again = More() && (in_[pos_] == '+' || (in_[pos_] == '?' && !comma));
    if (again && atom_ <= out_.size()) {
      out_.insert(atom_, "(?:");
      absl::StrAppend(&out_, counts, ")", std::string(1, in_[pos_++]));
      return;
    }
    out_ += counts;
    if (Eat("?")) out_ += '?';
  }

  absl::Status OpenGroup() {
    const size_t start = pos_;
    if (in_.substr(pos_, 2) == "(*") return Unsupported("(*");
    groups_.push_back(out_.size());
    BeginAtom();
    ++pos_;
    if (!Eat("?")) {
      out_ += '(';
      return absl::OkStatus();
    }
    for (std::string_view kind : {":", "=", "!", ">", "<=", "<!"}) {
      if (Eat(kind)) {
        absl::StrAppend(&out_, "(?", std::string(kind));
        return absl::OkStatus();
      }
    }
    if (Eat("#")) {
      groups_.pop_back();
      while (More() && in_[pos_] != ')') ++pos_;
      if (!Eat(")")) return Unsupported("(?# without an end");
      return absl::OkStatus();
    }
    if (Eat("<")) {  // a name
      out_ += "(?<";
      return absl::OkStatus();
    }
    // Flags. The one for "dot matches a newline" is m there and s here.
    std::string flags;
    while (More() && (in_[pos_] == 'i' || in_[pos_] == 'm' || in_[pos_] == '-')) {
      flags += in_[pos_] == 'm' ? 's' : in_[pos_];
      ++pos_;
    }
    if (!flags.empty() && Eat(":")) {
      absl::StrAppend(&out_, "(?", flags, ":");
      return absl::OkStatus();
    }
    // A bare (?i) holds to the end of its group there, across `|`; the two agree where it opens
    // the pattern.
    if (!flags.empty() && start == 0 && Eat(")")) {
      groups_.pop_back();
      absl::StrAppend(&out_, "(?", flags, ")");
      return absl::OkStatus();
    }
    return Unsupported(in_.substr(start, std::min<size_t>(pos_ - start + 1, 16)));
  }

  // After \p or \P: {Name}, {^Name}.
  absl::Status Property(bool negated) {
    if (!Eat("{")) return Unsupported("\\p without {");
    if (Eat("^")) negated = !negated;
    const size_t end = in_.find('}', pos_);
    if (end == std::string_view::npos || end - pos_ > 64) return Unsupported("\\p{ without }");
    std::string name(in_.substr(pos_, end - pos_));
    pos_ = end + 1;
    std::string lower;
    for (char c : name) {
      const auto u = static_cast<unsigned char>(c);
      if (!std::isalnum(u) && c != '_' && c != ' ' && c != '-' && c != '&') {
        return Unsupported(absl::StrCat("\\p{", name, "}"));
      }
      lower += c == ' ' || c == '-' ? '_' : static_cast<char>(std::tolower(u));
    }
    for (const auto& [long_name, short_name] : kLongNames) {
      if (lower == long_name) name = std::string(short_name);
    }
    const bool known =
        std::find(std::begin(kProperties), std::end(kProperties), name) != std::end(kProperties);
    if (name.size() > 2 && !known) name = absl::StrCat("sc:", name);
    absl::StrAppend(&out_, negated ? "\\P{" : "\\p{", name, "}");
    return absl::OkStatus();
  }

  // \xHH, \x{H...}, \uHHHH, after the letter.
  absl::Status Hex(char letter) {
    const bool braces = letter == 'x' && Eat("{");
    const size_t most = braces ? 8 : letter == 'u' ? 4 : 2;
    std::string digits;
    while (More() && digits.size() < most && std::isxdigit(static_cast<unsigned char>(in_[pos_]))) {
      digits += in_[pos_++];
    }
    const bool whole = braces ? Eat("}") : digits.size() == most;
    // Two digits mean a byte there, which is a character only where it is ASCII.
    const bool byte = letter == 'x' && !braces && !digits.empty() && digits[0] > '7';
    if (digits.empty() || !whole || byte)
      return Unsupported(absl::StrCat("\\", std::string(1, letter), digits));
    absl::StrAppend(&out_, "\\x{", digits, "}");
    return absl::OkStatus();
  }

  // What stands for the escape of letter `c`, if the table has it.
  bool Append(const Escapes& table, char c) {
    const auto found = table.find(c);
    if (found == table.end()) return false;
    out_ += found->second;
    return true;
  }

  // Escapes that mean the same inside and outside a class. Sets `*known` where it was one.
  absl::Status CommonEscape(char c, bool* known) {
    *known = true;
    if (c == 'x' || c == 'u') return Hex(c);
    if (c == 'p' || c == 'P') return Property(c == 'P');
    if (Append(CommonEscapes(), c)) return absl::OkStatus();
    if (static_cast<unsigned char>(c) < 0x80 && std::isalnum(static_cast<unsigned char>(c))) {
      *known = false;
      return absl::OkStatus();
    }
    if (static_cast<unsigned char>(c) < 0x80) {
      out_ += '\\';
      out_ += c;
    } else {
      --pos_;
      Literal();
    }
    return absl::OkStatus();
  }

  absl::Status Escape() {
    if (++pos_ >= in_.size()) return Unsupported("\\ at the end");
    BeginAtom();
    const char c = in_[pos_++];
    bool known;
    RETURN_IF_ERROR(CommonEscape(c, &known));
    if (known) return absl::OkStatus();
    // Anchors and back references are the same here.
    if (std::string_view("AzZG123456789").find(c) != std::string_view::npos) {
      absl::StrAppend(&out_, "\\", std::string(1, c));
    } else if (!Append(PlainEscapes(), c)) {
      return Unsupported(absl::StrCat("\\", std::string(1, c)));
    }
    return absl::OkStatus();
  }

  // One escape inside a class; `*is_set` if it stands for more than one character.
  absl::Status ClassEscape(bool* is_set) {
    if (++pos_ >= in_.size()) return Unsupported("\\ at the end");
    const char c = in_[pos_++];
    *is_set = std::string_view("dDpPsSwh").find(c) != std::string_view::npos;
    bool known;
    RETURN_IF_ERROR(CommonEscape(c, &known));
    if (known) return absl::OkStatus();
    if (Append(ClassEscapes(), c)) return absl::OkStatus();
    return Unsupported(absl::StrCat("\\", std::string(1, c), " in a character class"));
  }

  absl::Status Class() {
    ++pos_;
    out_ += '[';
    if (Eat("^")) out_ += '^';
    if (Eat("]")) out_ += "\\]";
    bool after_set = false;
    while (More() && in_[pos_] != ']') {
      const char c = in_[pos_];
      if (c == '[') return Unsupported("[ in a character class");
      if (in_.substr(pos_, 2) == "&&") return Unsupported("&& in a character class");
      if (c == '\\') {
        RETURN_IF_ERROR(ClassEscape(&after_set));
        continue;
      }
      if (c == '-') {
        // Beside a set a hyphen stands for itself; what the set became must not make it a range.
        const std::string_view next = in_.substr(pos_ + 1, 2);
        const bool before_set =
            next.size() == 2 && next[0] == '\\' &&
            std::string_view("dDpPsSwh").find(next[1]) != std::string_view::npos;
        out_ += after_set || before_set ? "\\-" : "-";
        ++pos_;
      } else {
        Literal();
      }
      after_set = false;
    }
    if (!Eat("]")) return Unsupported("[ without an end");
    out_ += ']';
    return absl::OkStatus();
  }

  std::string_view in_;
  size_t pos_ = 0;
  std::string out_;
  size_t atom_ = std::string::npos;  // where in out_ the last thing that can be repeated starts
  std::vector<size_t> groups_;       // where in out_ the open groups start
};

}  // namespace

absl::StatusOr<std::string> TranslateOniguruma(std::string_view pattern) {
  return Translator(pattern).Run();
}

}  // namespace switchyard::worker::tokenizer
