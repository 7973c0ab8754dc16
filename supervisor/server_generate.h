#pragma once

#include <cstdint>
#include <memory>

#include "supervisor/event_loop.h"
#include "supervisor/routed_call.h"
#include "supervisor/router.h"

namespace switchyard::supervisor {

// One client's Generate stream.
class GenerateCall final : public RoutedCall<v1::GenerateEvent>, public GenerateSink {
 public:
  GenerateCall(std::shared_ptr<ServerCall> call, EventLoop* loop, Router* router,
               uint64_t limit_bytes);

  // Hands the request to the router. In a task.
  void Begin(v1::GenerateRequest request);

  void Write(v1::GenerateEvent event) override;
  void Finish(absl::Status status) override;
  uint64_t buffered_bytes() const override { return buffered(); }

 private:
  void Drained() override;
  std::shared_ptr<GenerateCall> Shared() {
    return std::static_pointer_cast<GenerateCall>(shared_from_this());
  }
};

}  // namespace switchyard::supervisor
