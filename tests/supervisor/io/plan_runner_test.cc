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
#include "tests/support/temp_dir.h"

namespace switchyard::supervisor {
namespace {

using ::testing::HasSubstr;
namespace fs = std::filesystem;

// What it does hangs on the model's name. `meet`: ends once seven more of them run.
constexpr char kScript[] = R"sh(#!/bin/sh
cd "${0%/*}" || exit 9
echo $$ > "pids/$$"
echo "$@" > arguments
case "$3" in
  *hang*) exec sleep 1000 ;;
  *mute*) exec >&- 2>&-; exec sleep 1000 ;;
  *meet*) until [ "$(ls pids | wc -l)" -ge 8 ]; do sleep 0.01; done ;;
  *refuse*) echo "it will not do" >&2; exit 1 ;;
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
  // Whether each has been reaped.
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
  PlanRunner plans(PlanFor::kServe, -1, 20 * kMillisecond);
  for (const char* name : {"hang", "mute"}) {
    const auto plan = plans.Plan(Named(name), "cpu");
    EXPECT_TRUE(absl::IsDeadlineExceeded(plan.status())) << plan.status();
    EXPECT_THAT(std::string(plan.status().message()),
                HasSubstr(absl::StrCat("/checkpoints/", name, " (")));
    EXPECT_THAT(std::string(plan.status().message()), HasSubstr(", mounted at /"));
  }
  EXPECT_TRUE(AllGone());
}

TEST_F(PlanRunnerTest, ManyRunAtOnce) {
  PlanRunner plans(PlanFor::kServe, -1);
  std::vector<v1::Model> models;
  for (int i = 0; i < 8; ++i) models.push_back(Named(absl::StrCat("meet", i)));
  plans.RunAhead(models, {{"cpu", 1, 0}});
  for (const v1::Model& model : models) {
    const auto plan = plans.Plan(model, "cpu");
    ASSERT_TRUE(plan.ok()) << plan.status();
    EXPECT_EQ(plan->image_bytes(), 7u);
  }
}

TEST_F(PlanRunnerTest, AnAnswerIsKept) {
  PlanRunner plans(PlanFor::kServe, -1);
  EXPECT_EQ(plans.Plan(Named("refuse"), "cpu").status(),
            absl::InvalidArgumentError("it will not do"));
  fs::remove(dir_ / "worker");
  EXPECT_EQ(plans.Plan(Named("refuse"), "cpu").status(),
            absl::InvalidArgumentError("it will not do"));
  EXPECT_THAT(std::string(plans.Plan(Named("other"), "cpu").status().message()),
              HasSubstr(dir_ / "worker"));
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
  EXPECT_TRUE(AllGone());
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
