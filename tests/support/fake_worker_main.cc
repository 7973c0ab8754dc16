// fake-worker: has switchyard-worker's command line and speaks worker.proto, without a model.

#include <google/protobuf/text_format.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <grpcpp/server_posix.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "switchyard/v1/worker.grpc.pb.h"
#include "tests/support/fake_worker_session.h"

namespace switchyard::testing {
namespace {

constexpr int kConnection = 3;
constexpr int kDeathPipe = 5;
constexpr size_t kMostQueued = 256;  // messages; then the session's threads wait

class Stream final : public grpc::ServerBidiReactor<v1::ToWorker, v1::FromWorker> {
 public:
  Stream(const v1::Plan& plan, const Faults& faults) {
    session_ = std::make_unique<Session>(
        plan, faults, [this](v1::FromWorker message) { Send(std::move(message)); });
    StartRead(&incoming_);
    heartbeat_ = std::thread([this] { Beat(); });
    heartbeat_.detach();
  }

  void OnReadDone(bool ok) override {
    if (!ok) ::_exit(0);  // the supervisor is gone
    session_->OnMessage(incoming_);
    StartRead(&incoming_);
  }
  void OnWriteDone(bool ok) override {
    std::lock_guard lock(mutex_);
    queue_.pop_front();
    room_.notify_all();
    if (ok && !queue_.empty()) StartWrite(&queue_.front());
  }
  void OnCancel() override { ::_exit(0); }
  void OnDone() override {}

 private:
  void Send(v1::FromWorker message) {
    std::unique_lock lock(mutex_);
    if (message.has_step()) room_.wait(lock, [&] { return queue_.size() < kMostQueued; });
    queue_.push_back(std::move(message));
    if (queue_.size() == 1) StartWrite(&queue_.front());
  }
  void Beat() {
    for (;;) {
      v1::FromWorker message;
      message.mutable_heartbeat()->set_rss_bytes(1 << 20);
      Send(std::move(message));
      ::usleep(500'000);
    }
  }

  v1::ToWorker incoming_;
  std::mutex mutex_;
  std::condition_variable room_;
  std::deque<v1::FromWorker> queue_;
  std::unique_ptr<Session> session_;
  std::thread heartbeat_;
};

class Service final : public v1::Worker::CallbackService {
 public:
  Service(v1::Plan plan, Faults faults) : plan_(std::move(plan)), faults_(std::move(faults)) {}
  grpc::ServerBidiReactor<v1::ToWorker, v1::FromWorker>* Serve(
      grpc::CallbackServerContext*) override {
    return new Stream(plan_, faults_);  // lives as long as the process
  }

 private:
  const v1::Plan plan_;
  const Faults faults_;
};

int Plan(const v1::Model& model) {
  Faults(model.name()).At("plan");
  if (model.checkpoint().find("broken") != std::string::npos) {
    std::fprintf(stderr, "%s: config.json: not there\n", model.checkpoint().c_str());
    return 1;
  }
  std::string text;
  google::protobuf::TextFormat::PrintToString(FakePlan(model), &text);
  std::fputs(text.c_str(), stdout);
  return 0;
}

int Serve(const v1::Model& model) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  std::thread([] {
    char byte;
    while (::read(kDeathPipe, &byte, 1) > 0) {
    }
    ::_exit(0);
  }).detach();
  Faults faults(model.name());
  faults.At("start");
  Service service(FakePlan(model), faults);
  grpc::ServerBuilder builder;
  builder.SetMaxReceiveMessageSize(-1);
  builder.RegisterService(&service);
  auto server = builder.BuildAndStart();
  grpc::AddInsecureChannelFromFd(server.get(), kConnection);
  server->Wait();
  return 0;
}

int Main(int argc, char** argv) {
  std::map<std::string, std::string> flags;
  for (int i = 1; i < argc; ++i) {
    const std::string flag = argv[i];
    if (flag == "--plan" || flag == "--serve" || flag == "--needs-weights") {
      flags[flag] = "";
    } else if (i + 1 < argc) {
      flags[flag] = argv[++i];
    }
  }
  v1::Model model;
  if (!google::protobuf::TextFormat::ParseFromString(flags["--model-text"], &model)) return 2;
  return flags.count("--plan") != 0 ? Plan(model) : Serve(model);
}

}  // namespace
}  // namespace switchyard::testing

int main(int argc, char** argv) { return switchyard::testing::Main(argc, argv); }
