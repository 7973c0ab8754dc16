// The only file that includes Boost.Asio.
#include "supervisor/event_loop.h"

#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <csignal>
#include <future>
#include <map>
#include <utility>
#include <vector>

#include "supervisor/task_queue.h"

namespace switchyard::supervisor {
namespace asio = boost::asio;
namespace {

// Asio's handlers may run after the object that they serve is gone (a cancelled wait still
// completes), so they hold the state by shared pointer and look at `live`.
struct WatchState : std::enable_shared_from_this<WatchState> {
  WatchState(asio::io_context& io, TaskQueue& t, int fd, std::function<void()> f)
      : descriptor(io, fd), tasks(t), ready(std::move(f)) {}

  void Arm() {
    descriptor.async_wait(asio::posix::stream_descriptor::wait_read,
                          [self = shared_from_this()](const boost::system::error_code& error) {
                            if (error) return;
                            self->tasks.RunOrPost([self] { self->Call(); });
                          });
  }
  void Call() {
    if (!live) return;
    ready();
    if (live) Arm();
  }

  asio::posix::stream_descriptor descriptor;
  TaskQueue& tasks;
  std::function<void()> ready;
  bool live = true;
};

class WatchImpl final : public EventLoop::Watch {
 public:
  explicit WatchImpl(std::shared_ptr<WatchState> state) : state_(std::move(state)) {
    state_->Arm();
  }
  ~WatchImpl() override {
    state_->live = false;
    state_->descriptor.release();  // cancels the wait, and leaves closing to the owner
  }

 private:
  std::shared_ptr<WatchState> state_;
};

}  // namespace

class EventLoop::Impl {
 public:
  Impl() = default;
  // asio gives signals their defaults back. One more that comes as the process ends, to have it
  // reload say, would end it otherwise.
  ~Impl() {
    signal_sets_.clear();
    for (int signal : signals_) std::signal(signal, SIG_IGN);
  }

  void Post(Task task) { tasks_.Post(std::move(task)); }
  void Dispatch(Task task) { tasks_.Dispatch(std::move(task)); }

  void OnOwnThread(absl::FunctionRef<void()> work) {
    if (tasks_.at_home()) return work();
    // Beside the queue: the task that waits here owns it. The loop's thread never waits for a task.
    std::promise<void> done;
    asio::post(io_, [&] {
      work();
      done.set_value();
    });
    done.get_future().wait();
  }

  void OnSignals(std::initializer_list<int> signals, std::function<void(int)> handler) {
    auto set = std::make_unique<asio::signal_set>(io_);
    for (int signal : signals) set->add(signal);
    signals_.insert(signals_.end(), signals);
    auto* raw = set.get();
    signal_sets_.push_back(std::move(set));
    ArmSignals(raw, std::move(handler));
  }

  std::unique_ptr<Watch> WatchReadable(int fd, std::function<void()> ready) {
    return std::make_unique<WatchImpl>(
        std::make_shared<WatchState>(io_, tasks_, fd, std::move(ready)));
  }

  Id StartTimer(Nanos delay, std::function<void()> fire) {
    const Id id = next_timer_++;
    auto [it, inserted] = timers_.try_emplace(id, io_, std::chrono::nanoseconds(delay));
    it->second.async_wait(
        [this, id, fire = std::move(fire)](const boost::system::error_code& error) mutable {
          if (error) return;
          // Cancelling does not recall a handler that is queued already; the map does.
          tasks_.RunOrPost([this, id, fire = std::move(fire)] {
            if (timers_.erase(id) != 0) fire();
          });
        });
    return id;
  }
  void StopTimer(Id id) { timers_.erase(id); }

  void Run() {
    auto work = asio::make_work_guard(io_);
    tasks_.Open();
    io_.run();
    tasks_.Wait();
  }
  // No task begins any more, so that none asks the loop's thread for something it no longer does.
  void Stop() {
    tasks_.Close();
    io_.stop();
  }

 private:
  void ArmSignals(asio::signal_set* set, std::function<void(int)> handler) {
    set->async_wait([this, set, handler = std::move(handler)](
                        const boost::system::error_code& error, int signal) mutable {
      if (error) return;
      tasks_.RunOrPost([this, set, signal, handler = std::move(handler)]() mutable {
        handler(signal);
        ArmSignals(set, std::move(handler));
      });
    });
  }

  // Tasks go before io_, of whose objects they hold some; handlers that are left call nothing.
  asio::io_context io_;
  TaskQueue tasks_{[this] { asio::post(io_, [this] { tasks_.RunHome(); }); }};
  std::vector<std::unique_ptr<asio::signal_set>> signal_sets_;
  std::vector<int> signals_;  // of all of them
  std::map<Id, asio::steady_timer> timers_;
  Id next_timer_ = 1;
};

EventLoop::EventLoop() : impl_(std::make_unique<Impl>()) {}
EventLoop::~EventLoop() = default;
void EventLoop::Run() { impl_->Run(); }
void EventLoop::Stop() { impl_->Stop(); }
void EventLoop::Post(Task task) { impl_->Post(std::move(task)); }
void EventLoop::Dispatch(Task task) { impl_->Dispatch(std::move(task)); }
void EventLoop::OnOwnThread(absl::FunctionRef<void()> work) { impl_->OnOwnThread(work); }
void EventLoop::OnSignals(std::initializer_list<int> signals, std::function<void(int)> handler) {
  impl_->OnSignals(signals, std::move(handler));
}
std::unique_ptr<EventLoop::Watch> EventLoop::WatchReadable(int fd, std::function<void()> ready) {
  return impl_->WatchReadable(fd, std::move(ready));
}
Timers::Id EventLoop::Start(Nanos delay, std::function<void()> fire) {
  return impl_->StartTimer(delay, std::move(fire));
}
void EventLoop::Stop(Id id) { impl_->StopTimer(id); }

}  // namespace switchyard::supervisor
