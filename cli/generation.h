#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "cli/render.h"
#include "switchyard/v1/inference.pb.h"

namespace switchyard::cli {

// What the events of one Generate add up to.
class Generation {
 public:
  void Add(const switchyard::v1::GenerateEvent& event);
  // The client ended it: the server's last event does not come, and a seed that the client did not
  // choose stays unknown.
  void Cancel(std::optional<uint64_t> seed);
  // The server's last event does not come because of `why`.
  void BreakOff(const absl::Status& why, std::optional<uint64_t> seed);

  // Whether anything of an answer has come: that it waits is none of it.
  bool begun() const { return begun_; }

  Json ToJson() const;

 private:
  void EndEarly(std::optional<uint64_t> seed);

  bool begun_ = false;
  std::string text_;
  std::vector<int32_t> ids_;
  std::vector<switchyard::v1::TokenLogprob> logprobs_;
  switchyard::v1::GenerateEvent::Start start_;
  switchyard::v1::GenerateEvent::Finish finish_;
  std::optional<uint64_t> seed_;
  absl::Status error_;
};

}  // namespace switchyard::cli
