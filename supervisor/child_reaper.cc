#include "supervisor/child_reaper.h"

#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <utility>
#include <vector>

namespace switchyard::supervisor {

ChildReaper::ChildReaper(EventLoop* loop) {
  loop->OnSignals({SIGCHLD}, [this](int) { Reap(); });
}

// A child that ends before this call is not lost: its SIGCHLD is handled by the loop, later.
void ChildReaper::Add(pid_t pid, std::function<void(int)> exited) {
  children_.emplace(pid, std::move(exited));
}

void ChildReaper::Reap() {
  // One SIGCHLD may stand for many children.
  std::vector<std::pair<std::function<void(int)>, int>> exited;
  for (auto it = children_.begin(); it != children_.end();) {
    int status = 0;
    if (::waitpid(it->first, &status, WNOHANG) == it->first) {
      exited.emplace_back(std::move(it->second), status);
      it = children_.erase(it);
    } else {
      ++it;
    }
  }
  for (auto& [callback, status] : exited) callback(status);
  ReapLeftBehind();
}

void ChildReaper::ReapLeftBehind() {
  siginfo_t ended{};
  while (::waitid(P_ALL, 0, &ended, WEXITED | WNOHANG | WNOWAIT) == 0 && ended.si_pid != 0) {
    if (::getpgid(ended.si_pid) == ended.si_pid) return;
    ::waitpid(ended.si_pid, nullptr, WNOHANG);
    ended.si_pid = 0;
  }
}

}  // namespace switchyard::supervisor
