#pragma once

#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/support/byte_buffer.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "common/executor.h"
#include "rpc/call_queue.h"
#include "supervisor/request_memory.h"
#include "supervisor/server_deadlines.h"

namespace switchyard::supervisor {

// One RPC of a client, of any method: its operations on the call queue. All kinds of methods look
// the same from here: a message comes in (the first is read before the method begins), messages go
// out, a status ends it. OnEnd is the last that a handler hears; it begins nothing afterwards.
class ServerCall final : public std::enable_shared_from_this<ServerCall> {
 public:
  // What a method does with its call. On the queue's thread.
  class Handler {
   public:
    virtual ~Handler() = default;
    // A Read has ended; null if the client sends no more.
    virtual void OnRead(const grpc::ByteBuffer* /*message*/) {}
    virtual void OnWritten(bool ok) = 0;
    // The client has our status, or is gone and can be told nothing any more.
    virtual void OnEnd() = 0;
  };
  // Begins a method, on the queue's thread. The handler lives until OnEnd at least.
  using Method = std::function<std::shared_ptr<Handler>(std::shared_ptr<ServerCall> call,
                                                        const grpc::ByteBuffer& request)>;
  using Methods = std::map<std::string, Method>;       // by "/package.Service/Method"
  using Count = std::shared_ptr<std::atomic<size_t>>;  // a call may outlive the service, in a task
  struct Service {
    grpc::AsyncGenericService generic;
    Methods methods;         // constant once calls are accepted
    Executor background{1};  // for what would hold up the queue's thread
    // At once, and some more over the Unix socket. gRPC 1.51's bound of a connection holds only
    // those clients that acknowledge it.
    size_t most_calls = 16'384;
    Count calls = std::make_shared<std::atomic<size_t>>(0);    // that were admitted
    Count refused = std::make_shared<std::atomic<size_t>>(0);  // and have not ended yet
    std::shared_ptr<RequestMemory> memory = std::make_shared<RequestMemory>(UINT64_MAX);
    CallDeadlines deadlines;
    Nanos arrives_within = 120 * kSecond;                 // a request, from when it is waited for
    Nanos taken_within = 20 * kSecond;                    // what is left of an answer: see Closing
    std::atomic<bool> refusing = false;                   // new calls are UNAVAILABLE
    std::function<void(const std::string& peer)> proved;  // who has brought the token; may be null
    std::string token;                                    // that calls must bring; as methods
    uint64_t without_token = 0;  // so many did not; the queue's thread only
  };

  // Waits for a call, begins it, and waits for the next one, until the server shuts down.
  static void Accept(CallQueue* queue, Service* service);

  ServerCall(CallQueue* queue, Service* service) : queue_(queue), service_(service) {}
  ~ServerCall();

  const grpc::ServerContext& context() const { return context_; }
  Service& service() const { return *service_; }

  // One read at a time, one write at a time, one finish, with or after the last write. From any
  // thread.
  void Read();
  void Write(const grpc::ByteBuffer& message);
  void WriteAndFinish(const grpc::ByteBuffer& message, const grpc::Status& status);
  void Finish(const grpc::Status& status);
  // The call has its status, and something may still have to be written before it: the client must
  // take the next piece of that soon, or the status.
  void Closing();
  // As if the client had gone. From any thread.
  void Cancel() { context_.TryCancel(); }

 private:
  using Ending = OwnedOperation<ServerCall>;
  void OnAccepted(bool ok);
  absl::Status Admit();
  void CountIn(const Count& count);
  void Refuse(const absl::Status& why);
  void OnRead(bool ok);
  void OnWritten(bool ok);
  void OnFinished(bool /*ok*/) {}
  void OnDone(bool /*ok*/);

  CallQueue* const queue_;
  Service* const service_;
  const Method* method_ = nullptr;
  grpc::GenericServerContext context_;
  grpc::GenericServerAsyncReaderWriter stream_{&context_};
  grpc::ByteBuffer message_;  // being read
  std::shared_ptr<Handler> handler_;
  Count counted_in_;
  bool ended_ = false;  // the queue's thread only, as are handler_ and method_
  Ending accepting_{queue_, &ServerCall::OnAccepted};
  Ending reading_{queue_, &ServerCall::OnRead};
  Ending writing_{queue_, &ServerCall::OnWritten};
  Ending finishing_{queue_, &ServerCall::OnFinished};
  Ending done_{queue_, &ServerCall::OnDone};
};

}  // namespace switchyard::supervisor
