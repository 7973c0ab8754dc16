#include "tests/worker/service/support.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <chrono>
#include <filesystem>
#include <utility>

#include "common/check.h"
#include "kernels/ops.h"

namespace switchyard::worker {

void TestOutbox::Send(v1::FromWorker message) {
  std::lock_guard lock(mutex_);
  messages_.push_back(std::move(message));
  taken_.push_back(false);
  changed_.notify_all();
}

v1::FromWorker TestOutbox::WaitFor(const std::function<bool(const v1::FromWorker&)>& wanted) {
  std::unique_lock lock(mutex_);
  v1::FromWorker found;
  size_t at = 0;
  auto look = [&] {
    for (; at < messages_.size(); ++at) {
      if (taken_[at] || !wanted(messages_[at])) continue;
      taken_[at] = true;
      found = messages_[at];
      return true;
    }
    return false;
  };
  // A bound only for what never comes.
  if (!changed_.wait_for(lock, std::chrono::seconds(60), look)) {
    ADD_FAILURE() << "the message did not come";
  }
  return found;
}

std::vector<v1::FromWorker> TestOutbox::all() const {
  std::lock_guard lock(mutex_);
  return messages_;
}

std::string GoldenModel(const std::string& name) {
  return std::string(SWITCHYARD_SOURCE_DIR) + "/tests/golden/models/" + name;
}

v1::Model GoldenEntry(const std::string& name) {
  v1::Model model;
  model.set_name(name);
  model.set_checkpoint(GoldenModel(name));
  model.set_context_length(128);
  model.set_max_sequences(4);
  return model;
}

std::unique_ptr<const OpenedModel> OpenGolden(const v1::Model& model) {
  auto ops = kernels::MakeCpuOps(2);
  auto opened = OpenModel(model, "cpu", *ops);
  EXPECT_TRUE(opened.ok()) << opened.status();
  SY_CHECK(opened.ok());
  return *std::move(opened);
}

std::unique_ptr<const Tokenizer> LetterTokenizer() {
  std::string vocabulary;
  for (char c = 'a'; c <= 'z'; ++c) {
    vocabulary += std::string("\"") + c + "\":" + std::to_string(c - 'a') + ",";
  }
  vocabulary += "\"<end>\":26";
  const std::string json =
      R"({"version":"1.0","truncation":null,"padding":null,"added_tokens":[{"id":26,)"
      R"("content":"<end>","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,)"
      R"("special":true}],"normalizer":null,"pre_tokenizer":{"type":"ByteLevel",)"
      R"("add_prefix_space":false,"trim_offsets":true,"use_regex":false},"post_processor":null,)"
      R"("decoder":{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,)"
      R"("use_regex":false},"model":{"type":"BPE","dropout":null,"unk_token":null,)"
      R"("continuing_subword_prefix":null,"end_of_word_suffix":null,"fuse_unk":false,)"
      R"("byte_fallback":false,"ignore_merges":false,"vocab":{)" +
      vocabulary + R"(},"merges":[]}})";
  auto tokenizer = Tokenizer::Parse(json, "letters");
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  SY_CHECK(tokenizer.ok());
  return *std::move(tokenizer);
}

TempDir::TempDir() {
  std::string pattern = std::filesystem::temp_directory_path() / "switchyard_test_XXXXXX";
  SY_CHECK(::mkdtemp(pattern.data()) != nullptr);
  path_ = pattern;
}

TempDir::~TempDir() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

}  // namespace switchyard::worker
