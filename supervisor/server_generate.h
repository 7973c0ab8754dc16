#pragma once

#include <cstdint>
#include <memory>

#include "supervisor/event_loop.h"
#include "supervisor/router.h"
#include "supervisor/server_stream.h"

namespace switchyard::supervisor {

// One client's Generate stream.
class GenerateCall final : public StreamCall<v1::GenerateEvent>, public GenerateSink {
 public:
  GenerateCall(std::shared_ptr<ServerCall> call, EventLoop* loop, Router* router,
               uint64_t limit_bytes);

  // Hands the request to the router. In a task.
  void Begin(v1::GenerateRequest request);

  void Write(v1::GenerateEvent event) override;
  void Finish(absl::Status status) override;
  uint64_t buffered_bytes() const override { return buffered(); }

 private:
  void Cancelled() override;
  void Drained() override;
  std::shared_ptr<GenerateCall> Shared() {
    return std::static_pointer_cast<GenerateCall>(shared_from_this());
  }

  EventLoop* const loop_;
  Router* const router_;
  RequestId id_ = 0;  // the loop's only; 0 until the router knows it
};

}  // namespace switchyard::supervisor
