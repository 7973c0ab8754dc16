// The only file that includes Boost.Asio.
#include "supervisor/event_loop.h"

#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <map>
#include <mutex>
#include <utility>
#include <vector>

namespace switchyard::supervisor {
namespace asio = boost::asio;
namespace {

// Asio's handlers may run after the object that they serve is gone (a cancelled wait still
// completes), so they hold the state by shared pointer and look at `live`.
struct WatchState : std::enable_shared_from_this<WatchState> {
  WatchState(asio::io_context& io, int fd, std::function<void()> f)
      : descriptor(io, fd), ready(std::move(f)) {}

  void Arm() {
    descriptor.async_wait(asio::posix::stream_descriptor::wait_read,
                          [self = shared_from_this()](const boost::system::error_code& error) {
                            if (error || !self->live) return;
                            self->ready();
                            if (self->live) self->Arm();
                          });
  }

  asio::posix::stream_descriptor descriptor;
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
  void Post(Task task) {
    bool first;
    {
      std::lock_guard lock(mutex_);
      first = posted_.empty();
      posted_.push_back(std::move(task));
    }
    // One wake-up for everything that is posted until the loop gets there.
    if (first) asio::post(io_, [this] { RunPosted(); });
  }

  void RunPosted() {
    {
      std::lock_guard lock(mutex_);
      running_.swap(posted_);
    }
    for (Task& task : running_) {
      task();
      task = nullptr;  // what it holds goes now, not when the batch has ended
    }
    running_.clear();
  }

  void OnSignals(std::initializer_list<int> signals, std::function<void(int)> handler) {
    auto set = std::make_unique<asio::signal_set>(io_);
    for (int signal : signals) set->add(signal);
    auto* raw = set.get();
    signal_sets_.push_back(std::move(set));
    ArmSignals(raw, std::move(handler));
  }

  std::unique_ptr<Watch> WatchReadable(int fd, std::function<void()> ready) {
    return std::make_unique<WatchImpl>(std::make_shared<WatchState>(io_, fd, std::move(ready)));
  }

  Id StartTimer(Nanos delay, std::function<void()> fire) {
    const Id id = next_timer_++;
    auto [it, inserted] = timers_.try_emplace(id, io_, std::chrono::nanoseconds(delay));
    it->second.async_wait(
        [this, id, fire = std::move(fire)](const boost::system::error_code& error) {
          // Cancelling does not recall a handler that is queued already; the map does.
          if (error || timers_.erase(id) == 0) return;
          fire();
        });
    return id;
  }
  void StopTimer(Id id) { timers_.erase(id); }

  void Run() {
    auto work = asio::make_work_guard(io_);
    io_.run();
  }
  void Stop() { io_.stop(); }

 private:
  void ArmSignals(asio::signal_set* set, std::function<void(int)> handler) {
    set->async_wait([this, set, handler = std::move(handler)](
                        const boost::system::error_code& error, int signal) mutable {
      if (error) return;
      handler(signal);
      ArmSignals(set, std::move(handler));
    });
  }

  std::mutex mutex_;
  std::vector<Task> posted_;   // guarded by mutex_
  std::vector<Task> running_;  // the loop's thread only
  asio::io_context io_{1};     // destroyed before what its handlers point to
  std::vector<std::unique_ptr<asio::signal_set>> signal_sets_;
  std::map<Id, asio::steady_timer> timers_;
  Id next_timer_ = 1;
};

EventLoop::EventLoop() : impl_(std::make_unique<Impl>()) {}
EventLoop::~EventLoop() = default;
void EventLoop::Run() { impl_->Run(); }
void EventLoop::Stop() { impl_->Stop(); }
void EventLoop::Post(Task task) { impl_->Post(std::move(task)); }
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
