#include "supervisor/catalog.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"

namespace switchyard::supervisor {
namespace {

using ::testing::HasSubstr;

std::string ErrorOf(const std::string& text) {
  absl::StatusOr<v1::Model> model = ParseModel(text, "/models/x.textproto");
  EXPECT_EQ(model.status().code(), absl::StatusCode::kInvalidArgument) << text;
  return std::string(model.status().message());
}

TEST(ParseModel, ResolvesTheCheckpointAgainstTheFile) {
  auto model = ParseModel("name: \"a\" checkpoint: \"demo/../austen\"", "/models/x.textproto");
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ(model->checkpoint(), "/models/austen");
  model = ParseModel("name: \"a\" checkpoint: \"/data/austen\"", "/models/x.textproto");
  ASSERT_TRUE(model.ok());
  EXPECT_EQ(model->checkpoint(), "/data/austen");
}

TEST(ParseModel, PointsAtWhatIsWrong) {
  EXPECT_THAT(ErrorOf("name: \"a\"\n  nonsense: 3"), HasSubstr("/models/x.textproto:2:"));
  EXPECT_THAT(ErrorOf("name: \"a\" checkpoint: \"c\"\n\n max_sequences: 257"),
              HasSubstr("/models/x.textproto:3:2: max_sequences: 257 is more than 256"));
  EXPECT_THAT(ErrorOf("name: \"a\" checkpoint: \"c\" max_sequences: -1"), HasSubstr(":1:"));
  EXPECT_THAT(ErrorOf("name: \"a b\" checkpoint: \"c\""), HasSubstr(":1:1: name: \"a b\""));
  EXPECT_THAT(ErrorOf("checkpoint: \"c\""), HasSubstr("name"));
  EXPECT_THAT(ErrorOf("name: \"a\""), HasSubstr("checkpoint"));
  EXPECT_THAT(ErrorOf("name: \"a\" checkpoint: \"c\" context_length: 4294967295"),
              HasSubstr("context_length"));
  EXPECT_THAT(ErrorOf("name: \"a\" checkpoint: \"c\" prefill_chunk: 100000"),
              HasSubstr("prefill_chunk"));
  EXPECT_THAT(ErrorOf("name: \"a\" checkpoint: \"c\" idle_timeout { seconds: -1 }"),
              HasSubstr("idle_timeout"));
  EXPECT_THAT(ErrorOf("name: \"a\" checkpoint: \"c\" max_wait { seconds: -1 }"),
              HasSubstr("max_wait"));
  EXPECT_THAT(ErrorOf("name: \"a\" checkpoint: \"c\" max_wait { nanos: 5 }"),
              HasSubstr("max_wait: is less than 1 s"));
  EXPECT_THAT(ErrorOf("name: \"a\" checkpoint: \"c\" quantize: INT3"), HasSubstr("INT3"));
  EXPECT_THAT(ErrorOf("name: \"a\" checkpoint: \"c\" quantize: 9"), HasSubstr("quantize"));
  EXPECT_THAT(ErrorOf("name: \"a\" checkpoint: \"c\" kv_cache: 77"), HasSubstr("kv_cache"));
  EXPECT_THAT(ErrorOf("name: \"a"), HasSubstr("/models/x.textproto:1:"));
  EXPECT_THAT(ErrorOf(std::string("name: \"a\0\"", 10)), HasSubstr("/models/x.textproto:"));
  ErrorOf("name: \"a\" name: \"b\" checkpoint: \"c\"");
}

TEST(ParseConfig, ChecksRanges) {
  EXPECT_TRUE(ParseConfig("listen: \"127.0.0.1:1\" devices: \"cpu=1GiB\" queue_limit: 5 "
                          "drain_timeout { seconds: 3 }",
                          "c")
                  .ok());
  EXPECT_FALSE(ParseConfig("queue_limit: 99999999", "c").ok());
  EXPECT_FALSE(ParseConfig("drain_timeout { seconds: -3 }", "c").ok());
  EXPECT_FALSE(ParseConfig("shutdown_timeout { nanos: 2000000000 }", "c").ok());
  EXPECT_FALSE(ParseConfig("probe_interval { seconds: -1 }", "c").ok());
  EXPECT_FALSE(ParseConfig("probe_interval { seconds: 10000000000 }", "c").ok());
  EXPECT_FALSE(ParseConfig("host_memory: \"much\"", "c").ok());
  EXPECT_THAT(std::string(ParseConfig("\nrequest_memory: \"much\"", "c").status().message()),
              HasSubstr("c:2:1: request_memory: \"much\" is not a size"));
  EXPECT_FALSE(ParseConfig("cache_size: \"much\"", "c").ok());
  EXPECT_FALSE(ParseConfig("default_model: \"../x\"", "c").ok());
  EXPECT_FALSE(ParseConfig("worker_threads: 100000", "c").ok());
  EXPECT_THAT(std::string(ParseConfig("\nlistn: \"x\"", "c").status().message()),
              HasSubstr("c:2:"));
}

// Also what 64 bits of nanoseconds cannot hold.
TEST(ParseConfig, ADurationIsAtMostThirtyDays) {
  for (const char* field : {"idle_timeout", "max_wait"}) {
    auto error = [field](const std::string& value) {
      return ErrorOf(absl::StrCat("name: \"a\" checkpoint: \"c\" ", field, " { ", value, " }"));
    };
    const std::string text = "name: \"a\" checkpoint: \"c\" ";
    EXPECT_TRUE(ParseModel(absl::StrCat(text, field, " { seconds: 2592000 }"), "x").ok()) << field;
    EXPECT_THAT(error("seconds: 2592001"),
                HasSubstr(absl::StrCat(field,
                                       ": 2592001 s and 0 ns are more than 2592000 s, "
                                       "which are 30 days")));
    EXPECT_THAT(error("seconds: 2592000 nanos: 1"), HasSubstr("are more than"));
    EXPECT_THAT(error("seconds: 9223372036"), HasSubstr("are more than"));
    EXPECT_THAT(error("seconds: 9223372036854775807"), HasSubstr("are more than"));
    EXPECT_THAT(error("seconds: 5 nanos: -1"), HasSubstr("5 s and -1 ns"));
  }
  for (const char* field : {"drain_timeout", "shutdown_timeout", "probe_interval"}) {
    auto ok = [field](const char* seconds) {
      return ParseConfig(absl::StrCat(field, " { seconds: ", seconds, " }"), "c").ok();
    };
    EXPECT_TRUE(ok("2592000")) << field;
    EXPECT_FALSE(ok("2592001")) << field;
    EXPECT_FALSE(ok("9223372036854775807")) << field;
  }
}

class LoadModelsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    directory_ = std::filesystem::path(::testing::TempDir()) /
                 ::testing::UnitTest::GetInstance()->current_test_info()->name();
    std::filesystem::remove_all(directory_);
    std::filesystem::create_directories(directory_);
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }
  void File(const std::string& name, const std::string& text) {
    std::ofstream(directory_ / name) << text;
  }
  std::filesystem::path directory_;
};

TEST_F(LoadModelsTest, ReadsTextprotosInOrder) {
  File("2.textproto", "name: \"second\" checkpoint: \"s\"");
  File("1.textproto", "name: \"first\" checkpoint: \"f\"");
  File("notes.txt", "not a model");
  auto models = LoadModels(directory_.string());
  ASSERT_TRUE(models.ok()) << models.status();
  ASSERT_EQ(models->size(), 2u);
  EXPECT_EQ((*models)[0].name(), "first");
  EXPECT_EQ((*models)[0].checkpoint(), (directory_ / "f").string());
}

TEST_F(LoadModelsTest, WhatIsHiddenIsAnEditors) {
  File("1.textproto", "name: \"first\" checkpoint: \"f\"");
  File(".2.textproto", "name: \"first\" checkpoint: \"f\"");
  std::filesystem::create_symlink("somebody@somewhere.1", directory_ / ".#1.textproto");
  auto models = LoadModels(directory_.string());
  ASSERT_TRUE(models.ok()) << models.status();
  EXPECT_EQ(models->size(), 1u);
}

TEST_F(LoadModelsTest, TwoOfOneNameAreRefusedNamingBothFiles) {
  File("1.textproto", "name: \"a\" checkpoint: \"f\"");
  File("2.textproto", "name: \"a\" checkpoint: \"g\"");
  const std::string error(LoadModels(directory_.string()).status().message());
  EXPECT_THAT(error, HasSubstr("1.textproto"));
  EXPECT_THAT(error, HasSubstr("2.textproto"));
}

TEST_F(LoadModelsTest, OneBadFileRefusesAll) {
  File("1.textproto", "name: \"a\" checkpoint: \"f\"");
  File("2.textproto", "name: \"b\" checkpoint:");
  EXPECT_THAT(std::string(LoadModels(directory_.string()).status().message()),
              HasSubstr("2.textproto:1:"));
}

TEST_F(LoadModelsTest, NothingThereIsSaid) {
  EXPECT_EQ(LoadModels(directory_.string()).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(LoadModels("/nowhere/at/all").status().code(), absl::StatusCode::kNotFound);
}

// 10 fixed, 80 weights, 10 smallest KV, in MiB.
absl::StatusOr<v1::Plan> PlanOf100(const v1::Model& model, const std::string& device) {
  if (model.name() == "broken") return absl::InvalidArgumentError("unknown family \"bert\"");
  constexpr uint64_t kMiB = 1 << 20;
  v1::Plan plan;
  plan.set_model(model.name());
  plan.set_fixed_bytes(10 * kMiB);
  plan.set_image_bytes(80 * kMiB);
  plan.set_chunk_bytes(8 * kMiB);
  plan.set_kv_smallest_bytes(10 * kMiB);
  plan.set_context_length(4096);
  // As if a token took 2 KiB of KV, and a chunk of prompt as much as 1024 tokens.
  for (uint32_t length = 2048; length >= 2; length /= 2) {
    v1::Plan::Context& shorter = *plan.add_shorter();
    shorter.set_context_length(length);
    shorter.set_bytes(12 * kMiB + 2048 * length);
  }
  return plan;
}

v1::Model Named(const std::string& name, const std::string& device = "") {
  v1::Model model;
  model.set_name(name);
  model.set_device(device);
  return model;
}

TEST(PlanCatalog, TheFirstDeviceWhereItFits) {
  const std::vector<Device> devices{{"small", 64 << 20, 0}, {"large", 128 << 20, 0}};
  const auto entries = PlanCatalog(
      {Named("a"), Named("b", "large"), Named("c", "small"), Named("d", "none"), Named("broken")},
      devices, 1 << 30, PlanOf100);
  EXPECT_TRUE(entries[0].problem.ok());
  EXPECT_EQ(entries[0].model.device(), "large");
  EXPECT_TRUE(entries[1].problem.ok());
  EXPECT_EQ(entries[2].problem.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(entries[2].plan.image_bytes(), 80u << 20);  // known, though it does not fit
  EXPECT_THAT(std::string(entries[3].problem.message()), HasSubstr("small, large"));
  EXPECT_THAT(std::string(entries[4].problem.message()), HasSubstr("bert"));
}

TEST(PlanCatalog, ACheckpointThatDoesNotAnswerIsAskedOnce) {
  int asked = 0;
  const auto entries = PlanCatalog(
      {Named("a")}, {{"one", 1, 0}, {"two", 1, 0}}, 1, [&](const v1::Model&, const std::string&) {
        ++asked;
        return absl::StatusOr<v1::Plan>(absl::DeadlineExceededError("it hangs"));
      });
  EXPECT_EQ(entries[0].problem, absl::DeadlineExceededError("it hangs"));
  EXPECT_EQ(asked, 1);
}

TEST(PlanCatalog, OnlyAVerdictIsTheModelsProblem) {
  const std::vector<Device> devices{{"small", 1, 0}, {"large", 128 << 20, 0}};
  const auto planner = [](const v1::Model& model, const std::string& device) {
    return model.name() == "a" && device == "large"
               ? absl::StatusOr<v1::Plan>(absl::InternalError("ended with signal 9"))
               : PlanOf100(model, device);
  };
  auto catalog = PlanCatalog({Named("a"), Named("b"), Named("c", "small"), Named("broken")},
                             devices, 1 << 30, planner);
  EXPECT_EQ(catalog[0].problem, absl::InternalError("ended with signal 9"));
  EXPECT_EQ(catalog[0].model.device(), "") << "where it fits is not known";
  std::vector<bool> not_planned;
  for (const ModelEntry& entry : catalog) not_planned.push_back(entry.not_planned);
  EXPECT_EQ(not_planned, (std::vector<bool>{true, false, false, false}));

  // As it is planned again.
  const std::vector<v1::Model> again = NotPlanned(catalog);
  ASSERT_EQ(again.size(), 1u);
  Replace(PlanCatalog(again, devices, 1 << 30, PlanOf100), catalog);
  EXPECT_TRUE(catalog[0].problem.ok()) << catalog[0].problem;
  EXPECT_EQ(catalog[0].model.device(), "large");
  EXPECT_EQ(catalog[1].model.name(), "b");
  EXPECT_TRUE(NotPlanned(catalog).empty());
}

TEST(PlanCatalog, ShowsTheArithmetic) {
  const auto entries = PlanCatalog({Named("a")}, {{"cpu", 100 << 20, 4 << 20}}, 1 << 30, PlanOf100);
  EXPECT_EQ(
      std::string(entries[0].problem.message()),
      "a needs 100.0 MiB (fixed 10.0 MiB + weights 80.0 MiB + smallest KV pool 10.0 MiB), but "
      "cpu has 100.0 MiB, of which 4.00 MiB are kept in reserve: 96.0 MiB can be leased. Use a "
      "larger device or a context_length of 2048");
  EXPECT_TRUE(
      PlanCatalog({Named("a")}, {{"cpu", 200 << 20, 0}}, 70 << 20, PlanOf100)[0].problem.ok())
      << "it is streamed";
  const auto host = PlanCatalog({Named("a")}, {{"cpu", 200 << 20, 0}}, 15 << 20, PlanOf100);
  EXPECT_EQ(std::string(host[0].problem.message()),
            "a needs 80.0 MiB of host memory for its master, or a budget of 16.0 MiB to be read "
            "from the disk each time, but the host budget is 15.0 MiB. Raise host_memory");
}

// A device of `device` bytes for a plan of 10 MiB fixed, 40 M weights in 80 MiB, 10 MiB of KV.
std::string Advice(uint64_t device) {
  auto plan = [](const v1::Model& model, const std::string& name) -> absl::StatusOr<v1::Plan> {
    absl::StatusOr<v1::Plan> plan = PlanOf100(model, name);
    plan->set_parameters(40'000'000);
    return plan;
  };
  const std::string message(
      PlanCatalog({Named("a")}, {{"cpu", device, 0}}, 1 << 30, plan)[0].problem.message());
  return message.substr(std::min(message.size(), message.rfind(". ") + 2));
}

TEST(PlanCatalog, AdvisesWhatHelps) {
  EXPECT_EQ(Advice(9 << 20), "Use a larger device");  // the fixed bytes alone do not fit
  EXPECT_EQ(Advice(96 << 20), "Use a larger device or a context_length of 2048 or `quantize: FP8`");
  EXPECT_EQ(Advice((92 << 20) + 5000),
            "Use a larger device or a context_length of 2 or `quantize: FP8`");
  EXPECT_EQ(Advice(92 << 20), "Use a larger device or `quantize: FP8`");  // not even that of 2
  EXPECT_EQ(Advice(80 << 20), "Use a larger device or `quantize: FP8`");
  EXPECT_EQ(Advice(45 << 20), "Use a larger device or `quantize: INT4`");
  EXPECT_EQ(Advice(30 << 20), "Use a larger device");
}

TEST(PlanCatalog, SumsThatOverflowDoNotFit) {
  auto huge = [](const v1::Model& model, const std::string& device) -> absl::StatusOr<v1::Plan> {
    v1::Plan plan;
    plan.set_model(model.name());
    plan.set_fixed_bytes(~uint64_t{0});
    plan.set_image_bytes(~uint64_t{0});
    return plan;
  };
  const auto entries = PlanCatalog({Named("a")}, {{"cpu", 100, 0}}, 100, huge);
  EXPECT_EQ(entries[0].problem.code(), absl::StatusCode::kFailedPrecondition);
}

}  // namespace
}  // namespace switchyard::supervisor
