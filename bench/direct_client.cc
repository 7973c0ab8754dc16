#include "bench/direct_client.h"

#include <fcntl.h>
#include <grpcpp/create_channel_posix.h>
#include <grpcpp/grpcpp.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "bench/limits.h"
#include "common/status_macros.h"
#include "switchyard/v1/worker.grpc.pb.h"

extern char** environ;

namespace switchyard::bench {
namespace {

std::string WorkerProgram() {
  if (const char* named = std::getenv("SWITCHYARD_WORKER"); named != nullptr) return named;
  const auto self = std::filesystem::read_symlink("/proc/self/exe");
  return self.parent_path() / "switchyard-worker";
}

// What the supervisor gives its channels to workers.
grpc::ChannelArguments SupervisorsArguments() {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);
  arguments.SetInt(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, 4 << 20);
  return arguments;
}

}  // namespace

class DirectWorker::Stream {
 public:
  explicit Stream(int fd)
      : channel_(grpc::CreateCustomInsecureChannelFromFd("worker", fd, SupervisorsArguments())),
        stub_(v1::Worker::NewStub(channel_)),
        stream_(stub_->Serve(&context_)) {}
  ~Stream() {
    context_.TryCancel();
    stream_->Finish();
  }

  absl::Status Write(const v1::ToWorker& message) {
    if (stream_->Write(message)) return absl::OkStatus();
    return absl::UnavailableError("the worker is gone");
  }
  absl::StatusOr<v1::FromWorker> Read() {
    v1::FromWorker message;
    if (stream_->Read(&message)) return message;
    return absl::UnavailableError("the worker is gone; its last words are above");
  }

 private:
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::Worker::Stub> stub_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReaderWriter<v1::ToWorker, v1::FromWorker>> stream_;
};

absl::StatusOr<std::unique_ptr<DirectWorker>> DirectWorker::Start(const std::string& checkpoint) {
  std::unique_ptr<DirectWorker> worker(new DirectWorker);
  RETURN_IF_ERROR(worker->Spawn(checkpoint));
  worker->stream_ = std::make_unique<Stream>(worker->connection_.Release());
  RETURN_IF_ERROR(worker->BecomeResident());
  return worker;
}

DirectWorker::~DirectWorker() {
  stream_.reset();
  death_.Reset();
  if (pid_ > 0) ::waitpid(pid_, nullptr, 0);
}

absl::Status DirectWorker::Spawn(const std::string& checkpoint) {
  ASSIGN_OR_RETURN(auto connection, SocketPair());
  ASSIGN_OR_RETURN(auto descriptors, SocketPair());
  ASSIGN_OR_RETURN(auto death, Pipe());
  v1::Model model;
  model.set_name("bench");
  model.set_checkpoint(std::filesystem::absolute(checkpoint));
  const std::string program = WorkerProgram(), text = model.ShortDebugString();
  const char* const argv[] = {program.c_str(), "--serve", "--model-text", text.c_str(),
                              "--device",      "cpu",     nullptr};
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  std::vector<UniqueFd> moved;  // out of the way of the targets
  int target = 3;
  for (int fd : {connection.second.get(), descriptors.second.get(), death.first.get()}) {
    moved.emplace_back(::fcntl(fd, F_DUPFD_CLOEXEC, 64));
    posix_spawn_file_actions_adddup2(&actions, moved.back().get(), target++);
  }
  posix_spawn_file_actions_addclosefrom_np(&actions, target);
  const int error = ::posix_spawn(&pid_, program.c_str(), &actions, nullptr,
                                  const_cast<char* const*>(argv), environ);
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0) return absl::ErrnoToStatus(error, absl::StrCat("starting ", program));
  connection_ = std::move(connection.first);
  descriptors_ = std::move(descriptors.first);
  death_ = std::move(death.second);
  return absl::OkStatus();
}

absl::Status DirectWorker::BecomeResident() {
  v1::FromWorker hello;
  while (!hello.has_hello()) {  // heartbeats come before it
    ASSIGN_OR_RETURN(hello, stream_->Read());
  }
  const v1::Plan& plan = hello.hello().plan();
  UniqueFd master(::memfd_create("switchyard:bench", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!master.valid() || ::ftruncate(master.get(), static_cast<off_t>(plan.image_bytes())) != 0) {
    return ErrnoStatus("a memfd for the master");
  }
  RETURN_IF_ERROR(SendFd(descriptors_.get(), master.get(), 1));
  v1::ToWorker use, lease;
  use.mutable_use_master()->set_master_id(1);
  use.mutable_use_master()->set_bytes(plan.image_bytes());
  RETURN_IF_ERROR(stream_->Write(use));
  while (true) {
    ASSIGN_OR_RETURN(v1::FromWorker message, stream_->Read());
    if (message.master().state() == v1::MasterStatus::FAILED) {
      return absl::InternalError(message.master().error());
    }
    if (message.master().state() == v1::MasterStatus::COMPLETE) break;
  }
  lease.mutable_set_lease()->set_epoch(1);
  v1::LeaseBytes& bytes = *lease.mutable_set_lease()->mutable_lease();
  bytes.set_fixed_bytes(plan.fixed_bytes());
  bytes.set_weight_bytes(plan.image_bytes());
  bytes.set_kv_bytes(plan.kv_useful_bytes());
  RETURN_IF_ERROR(stream_->Write(lease));
  while (true) {
    ASSIGN_OR_RETURN(v1::FromWorker message, stream_->Read());
    if (!message.lease().settled()) continue;
    if (message.lease().error().empty()) return absl::OkStatus();
    return absl::ResourceExhaustedError(message.lease().error());
  }
}

absl::StatusOr<double> DirectWorker::FirstToken(const v1::GenerateRequest& request) {
  v1::ToWorker submit;
  submit.mutable_submit()->set_request_id(next_id_++);
  *submit.mutable_submit()->mutable_request() = request;
  const double start = Now();
  RETURN_IF_ERROR(stream_->Write(submit));
  double first = 0;
  while (true) {
    ASSIGN_OR_RETURN(v1::FromWorker message, stream_->Read());
    if (message.has_rejected()) return absl::InvalidArgumentError(message.rejected().message());
    for (const auto& event : message.step().events()) {
      if (first == 0 && event.event().ids_size() > 0) first = Now() - start;
      if (event.event().has_finish()) return first;
    }
  }
}

}  // namespace switchyard::bench
