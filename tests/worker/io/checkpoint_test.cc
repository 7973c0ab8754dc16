#include "worker/io/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cerrno>

#include <nlohmann/json.hpp>

#include "tests/worker/io/checkpoint_writer.h"

namespace switchyard::worker {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class CheckpointTest : public testing::Test {
 protected:
  void SetUp() override { WriteText(dir_ / "config.json", R"({"model_type":"llama"})"); }

  void WriteShards(const std::string& weight_map) {
    WriteSafetensors(dir_ / "one.safetensors", {{"a", "F32", {2}, FloatBytes({1, 2})}});
    WriteSafetensors(dir_ / "two.safetensors",
                     {{"b", "F32", {1}, FloatBytes({3})}, {"c", "F32", {1}, FloatBytes({4})}});
    WriteText(dir_ / "model.safetensors.index.json", R"({"weight_map":)" + weight_map + "}");
  }

  absl::Status OpenStatus() { return Checkpoint::Open(dir_.path()).status(); }

  TempDir dir_;
};

// Not NOT_FOUND: a plan would take that for a checkpoint whose weights are still to be had.
TEST_F(CheckpointTest, AShardThatIsMissingIsNamed) {
  WriteShards(R"({"a":"one.safetensors","b":"two.safetensors","c":"two.safetensors"})");
  ASSERT_EQ(::unlink((dir_ / "two.safetensors").c_str()), 0);
  const absl::Status status = OpenStatus();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(status.message().find("two.safetensors"), absl::string_view::npos) << status;
  EXPECT_NE(status.message().find("not complete"), absl::string_view::npos) << status;
}

// That would be a verdict on the checkpoint.
TEST_F(CheckpointTest, AShardThatCannotBeLookedAtIsNotTakenForOneThatIsThere) {
  WriteShards(R"({"a":"one.safetensors","b":"two.safetensors","c":"two.safetensors"})");
  for (const char* shard : {"one.safetensors", "two.safetensors"}) {
    ASSERT_EQ(::unlink((dir_ / shard).c_str()), 0);
  }
  ASSERT_EQ(::symlink("two.safetensors", (dir_ / "two.safetensors").c_str()), 0);
  EXPECT_EQ(OpenStatus(), absl::ErrnoToStatus(ELOOP, dir_ / "two.safetensors"));
}

TEST_F(CheckpointTest, AnIndexAloneIsACheckpointWithoutWeights) {
  WriteShards(R"({"a":"one.safetensors","b":"two.safetensors","c":"two.safetensors"})");
  ASSERT_EQ(::unlink((dir_ / "one.safetensors").c_str()), 0);
  EXPECT_EQ(OpenStatus().code(), absl::StatusCode::kInvalidArgument) << OpenStatus();
  ASSERT_EQ(::unlink((dir_ / "two.safetensors").c_str()), 0);
  EXPECT_EQ(OpenStatus().code(), absl::StatusCode::kNotFound) << OpenStatus();
  EXPECT_NE(OpenStatus().message().find("one.safetensors: is missing"), absl::string_view::npos)
      << OpenStatus();
}

TEST_F(CheckpointTest, OneFile) {
  WriteSafetensors(dir_ / "model.safetensors", {{"a", "F32", {2}, FloatBytes({1, 2})}});
  const auto checkpoint = Checkpoint::Open(dir_.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_EQ(checkpoint->tensor_count(), 1u);
  EXPECT_EQ(checkpoint->tensor_bytes(), 8u);
  EXPECT_EQ(checkpoint->config().at("model_type"), "llama");
  ASSERT_NE(checkpoint->Find("a"), nullptr);
  EXPECT_EQ(checkpoint->Find("b"), nullptr);
  std::string data(4, '\0');
  ASSERT_TRUE(checkpoint->Read("a", 4, std::as_writable_bytes(std::span(data))).ok());
  EXPECT_EQ(data, FloatBytes({2}));
  EXPECT_EQ(checkpoint->Read("a", 5, std::as_writable_bytes(std::span(data))).code(),
            absl::StatusCode::kOutOfRange);
  EXPECT_EQ(checkpoint->Read("a", UINT64_MAX, std::as_writable_bytes(std::span(data))).code(),
            absl::StatusCode::kOutOfRange);
}

TEST_F(CheckpointTest, Shards) {
  WriteShards(R"({"a":"one.safetensors","b":"two.safetensors","c":"two.safetensors"})");
  const auto checkpoint = Checkpoint::Open(dir_.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_EQ(checkpoint->tensor_count(), 3u);
  std::string data(4, '\0');
  ASSERT_TRUE(checkpoint->Read("c", 0, std::as_writable_bytes(std::span(data))).ok());
  EXPECT_EQ(data, FloatBytes({4}));
}

TEST_F(CheckpointTest, IndexAndShardsMustAgree) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({"a":"one.safetensors","b":"two.safetensors"})", "tensor \"c\" is not in"},
      {R"({"a":"one.safetensors","b":"two.safetensors","c":"one.safetensors"})",
       "tensor \"c\" is missing"},
      {R"({"a":"one.safetensors","z":"two.safetensors","b":"two.safetensors"})",
       "tensor \"z\" is missing"},
      {R"({"a":"../one.safetensors"})", "does not name a file in this directory"},
      {R"({"a":"/etc/passwd"})", "does not name a file in this directory"},
      {R"({"a":".."})", "does not name a file in this directory"},
      {R"({"a":7})", "does not name a file in this directory"},
      {R"({"a":"three.safetensors"})", "three.safetensors"},
      {R"({})", "names no tensor"},
      {R"([])", "weight_map"},
  };
  for (const auto& [weight_map, says] : cases) {
    WriteShards(weight_map);
    EXPECT_THAT(OpenStatus().message(), HasSubstr(says)) << weight_map;
  }
}

TEST_F(CheckpointTest, ATensorInTwoShards) {
  WriteShards(R"({"a":"one.safetensors","b":"two.safetensors","c":"two.safetensors"})");
  WriteSafetensors(dir_ / "two.safetensors", {{"a", "F32", {1}, FloatBytes({3})},
                                              {"b", "F32", {1}, FloatBytes({3})},
                                              {"c", "F32", {1}, FloatBytes({4})}});
  EXPECT_THAT(OpenStatus().message(), HasSubstr("is also in"));
}

TEST_F(CheckpointTest, MissingFilesAreNamed) {
  EXPECT_TRUE(absl::IsNotFound(OpenStatus()));
  EXPECT_THAT(OpenStatus().message(), HasSubstr("neither model.safetensors nor"));
  EXPECT_THAT(Checkpoint::Open("/nowhere").status().message(), HasSubstr("/nowhere/config.json"));
}

TEST_F(CheckpointTest, SpecialIdsComeFromTheFirstFileThatHasThem) {
  WriteSafetensors(dir_ / "model.safetensors", {{"a", "F32", {2}, FloatBytes({1, 2})}});
  WriteText(dir_ / "config.json",
            R"({"eos_token_id":[1,2],"text_config":{"bos_token_id":4,"eos_token_id":9}})");
  auto checkpoint = Checkpoint::Open(dir_.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_THAT(checkpoint->generation().eos_ids, ElementsAre(1, 2));
  EXPECT_EQ(checkpoint->generation().bos_id, 4);
  WriteText(dir_ / "generation_config.json", R"({"eos_token_id":7,"temperature":0.5})");
  checkpoint = Checkpoint::Open(dir_.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_THAT(checkpoint->generation().eos_ids, ElementsAre(7));
  EXPECT_EQ(checkpoint->generation().temperature, 0.5f);
  WriteText(dir_ / "generation_config.json", "{");
  EXPECT_THAT(OpenStatus().message(), HasSubstr("generation_config.json"));
}

// As package stores and layers of containers make them.
TEST_F(CheckpointTest, TwoOfTheSameNamesSizesAndTimesAreTwo) {
  TempDir other;
  std::vector<std::string> identities;
  for (const std::string& dir : {dir_.path(), other.path()}) {
    const std::string file = dir + "/model.safetensors";
    WriteText(dir + "/config.json", "{}");
    WriteSafetensors(file, {{"a", "F32", {2}, FloatBytes({1, 2})}});
    std::filesystem::last_write_time(file, std::filesystem::file_time_type());
    identities.push_back(Checkpoint::Open(dir)->identity());
  }
  EXPECT_NE(identities[0], identities[1]);
}

TEST_F(CheckpointTest, IdentityChangesWithTheFiles) {
  WriteSafetensors(dir_ / "model.safetensors", {{"a", "F32", {2}, FloatBytes({1, 2})}});
  const std::string before = Checkpoint::Open(dir_.path())->identity();
  EXPECT_EQ(Checkpoint::Open(dir_.path())->identity(), before);
  WriteText(dir_ / "config.json", R"({"model_type":"qwen3"})");
  EXPECT_NE(Checkpoint::Open(dir_.path())->identity(), before);
}

}  // namespace
}  // namespace switchyard::worker
