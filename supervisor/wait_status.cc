#include "supervisor/wait_status.h"

#include <string.h>
#include <sys/wait.h>

#include <csignal>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace switchyard::supervisor {
namespace {

// A program that gives up, or aborts, says why last. One that was killed did not know.
bool SaidWhy(int wait_status) {
  if (WIFEXITED(wait_status)) return WEXITSTATUS(wait_status) != 0;
  return WIFSIGNALED(wait_status) && WTERMSIG(wait_status) == SIGABRT;
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
    if (!absl::StripAsciiWhitespace(line).empty()) lines.push_back(line);
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
