// Planners that hang, and those that do not, with a script in the worker's place.

#include "supervisor/plan_runner.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/utf8.h"
#include "supervisor/plan_process.h"
#include "tests/support/temp_dir.h"

namespace switchyard::supervisor {
namespace {

using ::testing::HasSubstr;
namespace fs = std::filesystem;

// What it does hangs on the model's name. `hang` and `mute` leave a file once they do. `meet`: ends
// once seven more of them run.
constexpr char kScript[] = R"sh(#!/bin/sh
cd "${0%/*}" || exit 9
echo $$ > "pids/$$"
echo "$@" > arguments
case "$3" in
  *hang*) : > hang; exec sleep 1000 ;;
  *mute*) exec >&- 2>&-; : > mute; exec sleep 1000 ;;
  *meet*) until [ "$(ls pids | wc -l)" -ge 8 ]; do sleep 0.01; done ;;
  *refuse*) echo "it will not do" >&2; exit 1 ;;
  *unread*) echo "it cannot be read now" >&2; exit 3 ;;
  *killed*) echo "it was reading" >&2; kill -9 $$ ;;
  *usage*) echo "no such option" >&2; exit 2 ;;
  *long*) yes "it says this, or that: ä" | head -n 20000 >&2; echo "so it is" >&2; exit 1 ;;
  *line*) yes ä | head -n 20000 | tr -d '\n' >&2; echo x >&2; exit 1 ;;
esac
echo 'model: "planned" image_bytes: 7'
)sh";

class PlanRunnerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    fs::create_directory(dir_ / "pids");
    std::ofstream(dir_ / "worker") << kScript;
    fs::permissions(dir_ / "worker", fs::perms::owner_all);
    ::setenv("SWITCHYARD_WORKER", (dir_ / "worker").c_str(), 1);
  }
  void TearDown() override { ::unsetenv("SWITCHYARD_WORKER"); }

  static v1::Model Named(const std::string& name) {
    v1::Model model;
    model.set_name(name);
    model.set_checkpoint("/checkpoints/" + name);
    return model;
  }
  // Returns once each has been reaped: those that were killed are on a busy machine not at once.
  void AwaitEnds() const {
    while (!AllGone()) PlanProcess::ReapKilled(kMillisecond);
  }
  bool AllGone() const {
    for (const auto& entry : fs::directory_iterator(dir_ / "pids")) {
      int pid = 0;
      if (!absl::SimpleAtoi(entry.path().filename().string(), &pid)) return false;
      if (::kill(pid, 0) == 0) return false;
    }
    return true;
  }
  std::string Arguments() const {
    std::stringstream text;
    text << std::ifstream(dir_ / "arguments").rdbuf();
    return text.str();
  }

  testing::TempDir dir_;
};

TEST_F(PlanRunnerTest, OneThatHangsIsKilledAndTheMessageSaysWhereItReads) {
  for (const char* name : {"hang", "mute"}) {
    absl::StatusOr<v1::Plan> plan;
    // Until it had the time to get there.
    for (Nanos longest = 20 * kMillisecond; !fs::exists(dir_ / name); longest *= 2) {
      plan = PlanRunner(PlanFor::kServe, -1, longest).Plan(Named(name), "cpu");
    }
    EXPECT_TRUE(absl::IsDeadlineExceeded(plan.status())) << plan.status();
    EXPECT_THAT(std::string(plan.status().message()),
                HasSubstr(absl::StrCat("/checkpoints/", name, " (")));
    EXPECT_THAT(std::string(plan.status().message()), HasSubstr(", mounted at /"));
  }
  AwaitEnds();
}

TEST_F(PlanRunnerTest, OnlyWhoGivesUpByItselfHasAVerdict) {
  PlanRunner plans(PlanFor::kServe, -1);
  EXPECT_EQ(plans.Plan(Named("killed"), "cpu").status(),
            absl::InternalError("planning ended with signal 9 (Killed): it was reading"));
  EXPECT_EQ(plans.Plan(Named("usage"), "cpu").status(),
            absl::InternalError("planning ended with exit status 2: no such option"));
  EXPECT_EQ(plans.Plan(Named("unread"), "cpu").status(),
            absl::UnavailableError("it cannot be read now"));
}

TEST_F(PlanRunnerTest, OfWhatItSaysTheEndIsKept) {
  PlanRunner plans(PlanFor::kServe, -1);
  const std::string cut = "(of more, the last 4 KiB) ";
  for (const char* name : {"long", "line"}) {
    const absl::Status status = plans.Plan(Named(name), "cpu").status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
    const std::string message(status.message());
    EXPECT_EQ(message.substr(0, cut.size()), cut);
    EXPECT_LE(message.size(), cut.size() + 4096);
    EXPECT_GE(message.size(), 4000u);
    EXPECT_EQ(FindInvalidUtf8(message), std::string::npos) << message;
  }
  const std::string message(plans.Plan(Named("long"), "cpu").status().message());
  EXPECT_EQ(message.substr(cut.size(), 9), "it says t");
  EXPECT_THAT(message, ::testing::EndsWith("\nso it is"));
}

TEST_F(PlanRunnerTest, ManyRunAtOnce) {
  int told = 0;
  PlanRunner plans(PlanFor::kServe, -1, kLongestPlanning, [&] { ++told; });
  std::vector<v1::Model> models;
  for (int i = 0; i < 8; ++i) models.push_back(Named(absl::StrCat("meet", i)));
  plans.RunAhead(models, {{"cpu", 1, 0}});
  for (const v1::Model& model : models) {
    const auto plan = plans.Plan(model, "cpu");
    ASSERT_TRUE(plan.ok()) << plan.status();
    EXPECT_EQ(plan->image_bytes(), 7u);
  }
  EXPECT_EQ(told, 8);
}

TEST_F(PlanRunnerTest, AnAnswerIsKept) {
  PlanRunner plans(PlanFor::kServe, -1);
  EXPECT_EQ(plans.Plan(Named("refuse"), "cpu").status(),
            absl::InvalidArgumentError("it will not do"));
  fs::remove(dir_ / "worker");
  EXPECT_EQ(plans.Plan(Named("refuse"), "cpu").status(),
            absl::InvalidArgumentError("it will not do"));
  const absl::Status not_started = plans.Plan(Named("other"), "cpu").status();
  EXPECT_TRUE(absl::IsUnavailable(not_started)) << not_started;
  EXPECT_THAT(std::string(not_started.message()), HasSubstr(dir_ / "worker"));
}

TEST_F(PlanRunnerTest, AStopEndsThemAll) {
  auto stop = Pipe();
  ASSERT_TRUE(stop.ok());
  PlanRunner plans(PlanFor::kServe, stop->first.get());
  std::thread stopper([&] {
    while (fs::is_empty(dir_ / "pids")) std::this_thread::yield();
    stop->second.Reset();
  });
  plans.RunAhead({Named("hang")}, {{"cpu", 1, 0}});
  stopper.join();
  EXPECT_TRUE(absl::IsCancelled(plans.Plan(Named("hang2"), "cpu").status()));
  AwaitEnds();
}

TEST_F(PlanRunnerTest, WhoServesNeedsWeights) {
  EXPECT_TRUE(PlanRunner(PlanFor::kServe, -1).Plan(Named("a"), "cpu").ok());
  EXPECT_THAT(Arguments(), HasSubstr(absl::StrCat("--supervisor-pid ", ::getpid())));
  EXPECT_THAT(Arguments(), HasSubstr("--needs-weights"));
  EXPECT_TRUE(PlanRunner(PlanFor::kCheck, -1).Plan(Named("a"), "cpu").ok());
  EXPECT_THAT(Arguments(), ::testing::Not(HasSubstr("--needs-weights")));
}

}  // namespace
}  // namespace switchyard::supervisor
