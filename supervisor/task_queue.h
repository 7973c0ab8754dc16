#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

#include "absl/functional/any_invocable.h"

namespace switchyard::supervisor {

// Runs tasks one at a time and in order, each on one of two kinds of threads: the home thread, or
// whichever thread brings a task while no other runs.
class TaskQueue {
 public:
  using Task = absl::AnyInvocable<void()>;

  // The calling thread becomes the home thread. `wake` makes it call RunHome soon; from any thread.
  explicit TaskQueue(std::function<void()> wake);

  // Runs on the home thread, later.
  void Post(Task task);
  // Runs here and now if nothing runs or waits and the queue is open; else later, on any thread.
  void Dispatch(Task task);
  // On the home thread: runs `task` now, unless another thread runs one or tasks wait before it.
  void RunOrPost(Task task);
  // On the home thread: everything that waits now, unless another thread runs tasks; that one wakes
  // the home thread when it meets a task that is not for it.
  void RunHome();

  // Until it is opened (on the home thread) tasks only gather. Once it was closed (by any) no task
  // begins any more: those that come are destroyed at once.
  void Open();
  void Close();
  // Until the task that runs elsewhere has ended, if there is one; destroys those that wait. On the
  // home thread, when closed.
  void Wait();

  bool at_home() const { return std::this_thread::get_id() == home_; }

 private:
  struct Entry {
    Task task;
    bool home_only;
  };
  // Another thread than home does so many of other threads' tasks, then home goes on.
  static constexpr size_t kMostElsewhere = 64;

  // These two hold mutex_.
  void WakeHome();  // if there is something to do that nobody does
  // Runs what waits and gives the ownership up; `lock` is held on entry and on return.
  void RunAsOwner(std::unique_lock<std::mutex>& lock);

  const std::thread::id home_ = std::this_thread::get_id();
  const std::function<void()> wake_;
  std::mutex mutex_;
  std::condition_variable given_up_;
  std::deque<Entry> waiting_;
  bool open_ = false;
  bool closed_ = false;
  bool owned_ = false;  // a thread runs tasks
  bool woken_ = false;  // home will call RunHome
};

}  // namespace switchyard::supervisor
