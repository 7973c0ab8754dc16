#pragma once

#include <cstdint>
#include <memory>
#include <utility>

#include "supervisor/event_loop.h"
#include "supervisor/router.h"
#include "supervisor/server_stream.h"

namespace switchyard::supervisor {

// A call that the router answers, perhaps later, and is told of if the client leaves before.
template <typename Message>
class RoutedCall : public StreamCall<Message> {
 public:
  RoutedCall(std::shared_ptr<ServerCall> call, EventLoop* loop, Router* router,
             typename StreamCall<Message>::Merge merge = StreamCall<Message>::MergeNothing,
             uint64_t limit_bytes = UINT64_MAX)
      : StreamCall<Message>(std::move(call), merge, limit_bytes), loop_(loop), router_(router) {}

  // In the task that hands it to the router.
  void SetId(RequestId id) { id_ = id; }

 protected:
  // In tasks only.
  Router& router() const { return *router_; }
  RequestId id() const { return id_; }
  EventLoop& loop() const { return *loop_; }

 private:
  // In order after the task that calls SetId; if that is still to come, it will not.
  void Cancelled() override {
    loop_->Dispatch([call = this->shared_from_this(), this] {
      if (id_ != 0) router_->CancelRequest(id_);
    });
  }

  EventLoop* const loop_;
  Router* const router_;
  RequestId id_ = 0;  // the loop's only; 0 until the router knows it
};

}  // namespace switchyard::supervisor
