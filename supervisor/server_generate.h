#pragma once

#include <cstdint>
#include <memory>

#include "supervisor/router.h"
#include "supervisor/server_stream.h"

namespace switchyard::supervisor {

// One client's Generate stream.
class GenerateCall final : public StreamCall<v1::GenerateEvent>, public GenerateSink {
 public:
  GenerateCall(EventLoop* loop, Router* router, uint64_t limit_bytes);

  // Parses the request and hands it to the router. Never fails: a bad request ends the stream.
  void Begin(const grpc::CallbackServerContext& context, const grpc::ByteBuffer& request);

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
