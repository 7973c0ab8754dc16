#include "supervisor/wait_status.h"

#include <string.h>
#include <sys/wait.h>

#include <algorithm>
#include <csignal>
#include <string_view>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace switchyard::supervisor {
namespace {

// A program that gives up, or aborts, says why last. One that was killed did not know.
bool SaidWhy(int wait_status) {
  if (WIFEXITED(wait_status)) return WEXITSTATUS(wait_status) != 0;
  return WIFSIGNALED(wait_status) && WTERMSIG(wait_status) == SIGABRT;
}

// "2026-01-31 12:00:00.000 info worker a: sandbox: confined", as `common/log` writes it. Such lines
// may be hours old; those that say what is wrong, and what is written past the log, may be, too,
// but nothing else tells why.
bool TellsNothingWrong(const std::string& line) {
  constexpr std::string_view kTime = "0000-00-00 00:00:00.000 ";
  const std::string time = line.substr(0, kTime.size());
  const bool log =
      std::equal(time.begin(), time.end(), kTime.begin(), kTime.end(), [](char c, char t) {
        return t == '0' ? absl::ascii_isdigit(static_cast<unsigned char>(c)) : c == t;
      });
  const std::string rest = line.substr(time.size());
  return log && (absl::StartsWith(rest, "info ") || absl::StartsWith(rest, "debug "));
}

}  // namespace

std::string DescribeWaitStatus(int wait_status) {
  if (WIFEXITED(wait_status)) return absl::StrCat("exit status ", WEXITSTATUS(wait_status));
  if (WIFSIGNALED(wait_status)) {
    const int signal = WTERMSIG(wait_status);
    return absl::StrCat("signal ", signal, " (", ::strsignal(signal), ")");
  }
  return absl::StrCat("wait status ", wait_status);
}

std::string DescribeEnd(int wait_status, const std::vector<std::string>& last_lines) {
  std::string text = absl::StrCat("ended with ", DescribeWaitStatus(wait_status));
  std::vector<std::string> lines;
  for (const std::string& line : last_lines) {
    if (absl::StripAsciiWhitespace(line).empty() || TellsNothingWrong(line)) continue;
    lines.push_back(line);
  }
  const bool said_why = SaidWhy(wait_status) && !lines.empty();
  if (said_why) {
    absl::StrAppend(&text, ": ", lines.back());
    lines.pop_back();
  }
  if (lines.empty()) return text;
  return absl::StrCat(text, said_why ? "\nits last lines before that:\n" : "\nits last lines:\n",
                      absl::StrJoin(lines, "\n"));
}

}  // namespace switchyard::supervisor
