// A whole worker in this process, but for its connection: golden checkpoints, real engine.

#include "worker/session.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "kernels/ops.h"
#include "tests/worker/service/support.h"

namespace switchyard::worker {
namespace {

using ::testing::HasSubstr;

struct Output {
  std::string text;
  std::vector<int32_t> ids;
  v1::GenerateEvent::Start start;
  v1::GenerateEvent::Finish finish;
  bool paused = false;
};

class SessionTest : public ::testing::Test {
 protected:
  explicit SessionTest(const v1::Model& entry = GoldenEntry("llama_defaults")) { Open(entry); }

  void Open(const v1::Model& entry) {
    model_ = OpenGolden(entry);
    auto sockets = SocketPair();
    ASSERT_TRUE(sockets.ok());
    supervisor_ = std::move(sockets->first);
    session_ = std::make_unique<Session>(Session::Parts{
        .model = *model_,
        .device = MakeCpuDevice(1),
        .ops = kernels::MakeCpuOps(1),
        .descriptor_socket = std::move(sockets->second),
        .cache_dir = "",
        .outbox = outbox_,
        .on_shutdown = [this] { shutdown_ = true; },
    });
    EXPECT_TRUE(outbox_.WaitFor([](const auto& m) { return m.has_hello(); }).hello().pid() > 0);
  }

  void FillMaster(uint64_t id = 1) {
    UniqueFd fd(::memfd_create("session_test", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    ASSERT_EQ(::ftruncate(fd.get(), static_cast<off_t>(model_->image.bytes)), 0);
    ASSERT_TRUE(SendFd(supervisor_.get(), fd.get(), id).ok());
    v1::ToWorker message;
    message.mutable_use_master()->set_master_id(id);
    message.mutable_use_master()->set_bytes(model_->image.bytes);
    session_->Handle(message);
    auto status = outbox_.WaitFor([](const v1::FromWorker& m) {
      return m.has_master() && m.master().state() != v1::MasterStatus::FILLING;
    });
    ASSERT_EQ(status.master().state(), v1::MasterStatus::COMPLETE) << status.master().error();
  }

  void SendLease(uint64_t fixed, uint64_t weights, uint64_t kv, bool pause = false) {
    v1::ToWorker message;
    v1::SetLease& lease = *message.mutable_set_lease();
    lease.set_epoch(++epoch_);
    lease.mutable_lease()->set_fixed_bytes(fixed);
    lease.mutable_lease()->set_weight_bytes(weights);
    lease.mutable_lease()->set_kv_bytes(kv);
    lease.set_in_flight(pause ? v1::SetLease::PAUSE : v1::SetLease::DRAIN);
    lease.set_host_kv_bytes(uint64_t{64} << 20);
    session_->Handle(message);
  }
  v1::LeaseStatus Settled() {
    return outbox_
        .WaitFor([this](const v1::FromWorker& m) {
          return m.has_lease() && m.lease().epoch() == epoch_ && m.lease().settled();
        })
        .lease();
  }
  void GrantAll() {
    const v1::Plan& plan = model_->plan;
    SendLease(plan.fixed_bytes(), plan.image_bytes(), plan.kv_useful_bytes());
  }
  void MakeResident() {
    FillMaster();
    GrantAll();
    const v1::LeaseStatus held = Settled();
    ASSERT_EQ(held.error(), "");
    ASSERT_EQ(held.held().weight_bytes(), model_->plan.image_bytes());
  }

  static v1::GenerateRequest Greedy(uint32_t tokens) {
    v1::GenerateRequest request;
    for (int32_t id : {91, 24, 92, 116, 68}) request.mutable_ids()->add_ids(id);
    request.mutable_sampling()->set_temperature(0);
    request.mutable_stop()->set_max_tokens(tokens);
    request.mutable_stop()->set_ignore_eos(true);
    return request;
  }
  uint64_t Submit(const v1::GenerateRequest& request, Nanos deadline = 0) {
    v1::ToWorker message;
    message.mutable_submit()->set_request_id(++request_);
    *message.mutable_submit()->mutable_request() = request;
    message.mutable_submit()->set_deadline_ns(static_cast<uint64_t>(deadline));
    session_->Handle(message);
    return request_;
  }
  void Cancel(uint64_t id) {
    v1::ToWorker message;
    message.mutable_cancel()->set_request_id(id);
    session_->Handle(message);
  }
  void Suspend(uint64_t id, bool suspended) {
    v1::ToWorker message;
    message.mutable_suspend()->set_request_id(id);
    message.mutable_suspend()->set_suspended(suspended);
    session_->Handle(message);
  }
  v1::Rejected Rejection(uint64_t id) {
    return outbox_
        .WaitFor([&](const auto& m) { return m.has_rejected() && m.rejected().request_id() == id; })
        .rejected();
  }
  void WaitAccepted(uint64_t id) {
    outbox_.WaitFor(
        [&](const auto& m) { return m.has_accepted() && m.accepted().request_id() == id; });
  }
  // Of a request, from its messages so far; `finish` is set once it has ended.
  Output SoFar(uint64_t id) const {
    Output output;
    for (const v1::FromWorker& message : outbox_.all()) {
      for (const auto& event : message.step().events()) {
        if (event.request_id() != id) continue;
        const v1::GenerateEvent& e = event.event();
        output.text += e.text();
        output.ids.insert(output.ids.end(), e.ids().begin(), e.ids().end());
        if (e.has_start()) output.start = e.start();
        if (e.has_finish()) output.finish = e.finish();
        output.paused = output.paused || e.waiting().paused();
      }
    }
    return output;
  }
  void WaitForEvent(uint64_t id, const std::function<bool(const v1::GenerateEvent&)>& wanted) {
    outbox_.WaitFor([&](const v1::FromWorker& message) {
      for (const auto& event : message.step().events()) {
        if (event.request_id() == id && wanted(event.event())) return true;
      }
      return false;
    });
  }
  Output Finished(uint64_t id) {
    WaitForEvent(id, [](const v1::GenerateEvent& event) { return event.has_finish(); });
    return SoFar(id);
  }

  TestOutbox outbox_;
  std::unique_ptr<const OpenedModel> model_;
  UniqueFd supervisor_;
  uint64_t epoch_ = 0;
  uint64_t request_ = 0;
  std::atomic<bool> shutdown_ = false;
  std::unique_ptr<Session> session_;
};

TEST_F(SessionTest, TellsTheTimeOfItsStepsAlsoOfEnginesThatAreGone) {
  // As told with the events of one request: at first, and at last.
  const auto busy = [this](uint64_t id) {
    Finished(id);
    std::vector<uint64_t> told;
    for (const v1::FromWorker& message : outbox_.all()) {
      if (!message.has_step() || message.step().events(0).request_id() != id) continue;
      told.push_back(message.step().busy_ns());
    }
    EXPECT_TRUE(std::is_sorted(told.begin(), told.end()));
    return std::pair(told.front(), told.back());
  };
  MakeResident();
  const auto first = busy(Submit(Greedy(5)));
  EXPECT_GT(first.first, 0u);
  EXPECT_GT(first.second, first.first);
  SendLease(0, 0, 0);
  EXPECT_EQ(Settled().held().fixed_bytes(), 0u);
  GrantAll();
  EXPECT_EQ(Settled().error(), "");
  EXPECT_GT(busy(Submit(Greedy(5))).first, first.second);
}

TEST_F(SessionTest, GeneratesWhatTheReferenceSays) {
  MakeResident();
  v1::GenerateRequest request = Greedy(5);
  request.mutable_logprobs()->set_logprobs(2);
  request.mutable_logprobs()->set_prompt_logprobs(0);
  const Output output = Finished(Submit(request));
  EXPECT_EQ(output.ids, (std::vector<int32_t>{90, 122, 60, 46, 87}));
  EXPECT_EQ(output.finish.reason(), v1::LENGTH);
  EXPECT_EQ(output.finish.usage().prompt_tokens(), 5u);
  EXPECT_EQ(output.finish.usage().completion_tokens(), 5u);
  ASSERT_EQ(output.start.prompt_logprobs_size(), 5);
  EXPECT_NEAR(output.start.prompt_logprobs(1).logprob(), -4.84185, 0.02);
  EXPECT_EQ(output.start.model(), "llama_defaults");
}

TEST_F(SessionTest, RequestsWaitForTheLease) {
  const uint64_t id = Submit(Greedy(3));
  WaitAccepted(id);
  MakeResident();
  EXPECT_EQ(Finished(id).ids.size(), 3u);
}

TEST_F(SessionTest, TokenizesWithoutALease) {
  v1::ToWorker message;
  message.mutable_tokenize()->set_request_id(5);
  message.mutable_tokenize()->mutable_request()->set_text("Ab");
  session_->Handle(message);
  auto done = outbox_.WaitFor([](const auto& m) { return m.has_tokenize(); }).tokenize();
  EXPECT_EQ(done.request_id(), 5u);
  EXPECT_THAT(done.reply().ids(), ::testing::ElementsAre(32, 65));
  message.mutable_detokenize()->set_request_id(6);
  message.mutable_detokenize()->mutable_request()->add_ids(32);
  message.mutable_detokenize()->mutable_request()->add_ids(65);
  session_->Handle(message);
  auto text = outbox_.WaitFor([](const auto& m) { return m.has_detokenize(); }).detokenize();
  EXPECT_EQ(text.reply().text(), "Ab");
  message.mutable_detokenize()->mutable_request()->add_ids(1000);
  session_->Handle(message);
  auto wrong = outbox_.WaitFor([](const auto& m) { return m.has_detokenize(); }).detokenize();
  EXPECT_EQ(wrong.code(), static_cast<int>(absl::StatusCode::kInvalidArgument));
}

TEST_F(SessionTest, BadRequestsAreRejectedWithoutALease) {
  v1::GenerateRequest request = Greedy(3);
  request.mutable_sampling()->set_top_p(2);
  const v1::Rejected rejected = Rejection(Submit(request));
  EXPECT_EQ(rejected.code(), static_cast<int>(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(rejected.message(), HasSubstr("top_p is 2"));
}

TEST_F(SessionTest, CancelAndDeadlineReachARequestWithoutALease) {
  const uint64_t id = Submit(Greedy(3));
  Cancel(id);
  EXPECT_EQ(Rejection(id).code(), static_cast<int>(absl::StatusCode::kCancelled));
  const uint64_t late = Submit(Greedy(3), kMillisecond);
  EXPECT_EQ(Rejection(late).code(), static_cast<int>(absl::StatusCode::kDeadlineExceeded));
}

TEST_F(SessionTest, ADeadlineBeyondAllTimeIsNone) {
  MakeResident();
  EXPECT_EQ(Finished(Submit(Greedy(3), /*deadline=*/-1)).ids.size(), 3u);
}

TEST_F(SessionTest, CancelReachesTheEngine) {
  MakeResident();
  const uint64_t id = Submit(Greedy(0));
  Suspend(id, true);  // so that it does not come to its end
  WaitAccepted(id);
  Cancel(id);
  EXPECT_EQ(Rejection(id).code(), static_cast<int>(absl::StatusCode::kCancelled));
}

TEST_F(SessionTest, StopStringEndsTheSequence) {
  MakeResident();
  const Output whole = Finished(Submit(Greedy(40)));
  ASSERT_GT(whole.text.size(), 8u);
  v1::GenerateRequest request = Greedy(40);
  // Three bytes from the middle, at a character's border: of a text that is ASCII as a rule.
  const size_t at = whole.text.find_first_of("abcdefghijklmnopqrstuvwxyz{}|~!#$%", 2);
  ASSERT_NE(at, std::string::npos);
  request.mutable_stop()->add_stop(whole.text.substr(at, 1));
  const Output stopped = Finished(Submit(request));
  EXPECT_EQ(stopped.finish.reason(), v1::STOP);
  EXPECT_EQ(stopped.text, whole.text.substr(0, whole.text.find(whole.text[at])));
  EXPECT_LT(stopped.ids.size(), whole.ids.size());
  EXPECT_EQ(stopped.finish.usage().completion_tokens(), stopped.ids.size());
}

TEST_F(SessionTest, FixedPartTooSmallIsRefusedWithNumbers) {
  SendLease(1000, 0, 0);
  const v1::LeaseStatus status = Settled();
  EXPECT_EQ(status.held().fixed_bytes(), 0u);
  EXPECT_THAT(status.error(), HasSubstr(std::to_string(model_->plan.fixed_bytes())));
  EXPECT_THAT(status.error(), HasSubstr("1000"));
}

TEST_F(SessionTest, LeaseGoesAndComesBack) {
  MakeResident();
  const std::vector<int32_t> before = Finished(Submit(Greedy(5))).ids;
  SendLease(model_->plan.fixed_bytes(), 0, 0);
  const v1::LeaseStatus asleep = Settled();
  EXPECT_EQ(asleep.held().weight_bytes(), 0u);
  EXPECT_EQ(asleep.held().kv_bytes(), 0u);
  EXPECT_EQ(asleep.held().fixed_bytes(), model_->plan.fixed_bytes());
  SendLease(0, 0, 0);
  EXPECT_EQ(Settled().held().fixed_bytes(), 0u);
  GrantAll();
  EXPECT_EQ(Settled().held().weight_bytes(), model_->plan.image_bytes());
  EXPECT_EQ(Finished(Submit(Greedy(5))).ids, before);
}

TEST_F(SessionTest, PauseAndResumeChangeNoToken) {
  MakeResident();
  const std::vector<int32_t> whole = Finished(Submit(Greedy(100))).ids;
  const uint64_t id = Submit(Greedy(100));
  WaitForEvent(id, [](const v1::GenerateEvent& event) { return event.ids_size() > 0; });
  SendLease(model_->plan.fixed_bytes(), 0, 0, /*pause=*/true);
  EXPECT_EQ(Settled().held().weight_bytes(), 0u);
  GrantAll();
  EXPECT_EQ(Finished(id).ids, whole);
}

TEST_F(SessionTest, DropMasterKeepsWhatIsOnTheDevice) {
  MakeResident();
  v1::ToWorker message;
  message.mutable_drop_master()->set_master_id(1);
  session_->Handle(message);
  outbox_.WaitFor([](const auto& m) { return m.master().state() == v1::MasterStatus::DROPPED; });
  EXPECT_EQ(Finished(Submit(Greedy(5))).ids, (std::vector<int32_t>{90, 122, 60, 46, 87}));
}

TEST_F(SessionTest, SuspendedBeforeItIsValidated) {
  MakeResident();
  const uint64_t id = Submit(Greedy(3));
  Suspend(id, true);
  // Another one runs to its end meanwhile.
  Finished(Submit(Greedy(20)));
  Suspend(id, false);
  EXPECT_EQ(Finished(id).ids.size(), 3u);
}

TEST_F(SessionTest, ShutdownIsPassedOn) {
  v1::ToWorker message;
  message.mutable_shutdown();
  session_->Handle(message);
  EXPECT_TRUE(shutdown_);
}

TEST_F(SessionTest, EndsInTheMiddleOfWork) {
  MakeResident();
  for (int i = 0; i < 8; ++i) Submit(Greedy(0));
  session_->Stop();
}

// The demonstration models: real tokenizers and text.
v1::Model DemoEntry(const std::string& name) {
  v1::Model model;
  model.set_name(name);
  model.set_checkpoint(std::string(SWITCHYARD_SOURCE_DIR) + "/models.d/demo/" + name);
  model.set_context_length(256);
  model.set_max_sequences(4);
  return model;
}

class DemoSessionTest : public SessionTest, public ::testing::WithParamInterface<const char*> {
 protected:
  DemoSessionTest() : SessionTest(DemoEntry(GetParam())) {}

  static v1::GenerateRequest Prompt(const std::string& text) {
    v1::GenerateRequest request;
    request.set_text(text);
    request.mutable_sampling()->set_seed(5);
    request.mutable_stop()->set_max_tokens(60);
    request.mutable_stop()->set_ignore_eos(true);
    return request;
  }
};

TEST_P(DemoSessionTest, TextIsTheIdsDecoded) {
  MakeResident();
  const Output output = Finished(Submit(Prompt("It was a dark and stormy night")));
  EXPECT_EQ(output.ids.size(), 60u);
  std::vector<int32_t> all(output.start.prompt_ids().begin(), output.start.prompt_ids().end());
  const std::string before = *model_->tokenizer->Decode(all, true);
  all.insert(all.end(), output.ids.begin(), output.ids.end());
  // Behind the prompt, since some tokenizers drop the space in front of a text.
  const std::string after = model_->tokenizer->Decode(all, true)->substr(before.size());
  EXPECT_THAT(after, ::testing::EndsWith(output.text));
  EXPECT_GE(output.text.size() + 1, after.size());
}

TEST_P(DemoSessionTest, StopStringInsideTheText) {
  MakeResident();
  const std::string whole = Finished(Submit(Prompt("The sea"))).text;
  ASSERT_GT(whole.size(), 60u);
  const std::string stop = whole.substr(40, 6);
  if (whole.find(static_cast<char>(0xef)) != std::string::npos) GTEST_SKIP() << "broken bytes";
  v1::GenerateRequest request = Prompt("The sea");
  request.mutable_stop()->add_stop(stop);
  const uint64_t id = Submit(request);
  const Output output = Finished(id);
  EXPECT_EQ(output.text, whole.substr(0, whole.find(stop)));
  EXPECT_EQ(output.finish.reason(), v1::STOP);
}

TEST_P(DemoSessionTest, SwapAndPauseChangeNothing) {
  MakeResident();
  const Output whole = Finished(Submit(Prompt("We")));
  const uint64_t id = Submit(Prompt("We"));
  WaitForEvent(id, [](const v1::GenerateEvent& event) { return event.ids_size() > 0; });
  SendLease(model_->plan.fixed_bytes(), 0, 0, /*pause=*/true);
  Settled();
  GrantAll();
  Settled();
  EXPECT_EQ(Finished(id).ids, whole.ids);
}

INSTANTIATE_TEST_SUITE_P(Demo, DemoSessionTest,
                         ::testing::Values("austen", "melville", "whitman", "shakespeare", "joyce",
                                           "chesterton"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace switchyard::worker
