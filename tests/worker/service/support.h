#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "switchyard/v1/worker.pb.h"
#include "worker/opened_model.h"
#include "worker/outbox.h"
#include "worker/tokenizer/tokenizer.h"

namespace switchyard::worker {

// Keeps every message, and waits for one.
class TestOutbox final : public Outbox {
 public:
  void Send(v1::FromWorker message) override;
  // The first message, new or old, that was not returned before and that `wanted` holds for.
  v1::FromWorker WaitFor(const std::function<bool(const v1::FromWorker&)>& wanted);
  std::vector<v1::FromWorker> all() const;

 private:
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<v1::FromWorker> messages_;
  std::vector<bool> taken_;
};

// A checkpoint of tests/golden/models.
std::string GoldenModel(const std::string& name);
v1::Model GoldenEntry(const std::string& name);
std::unique_ptr<const OpenedModel> OpenGolden(const v1::Model& model);

// One letter a token, a to z, and the id 26 for "<end>".
std::unique_ptr<const Tokenizer> LetterTokenizer();

// A new directory, removed at the end.
class TempDir {
 public:
  TempDir();
  ~TempDir();
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace switchyard::worker
