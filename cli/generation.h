#pragma once

#include <optional>
#include <string>
#include <vector>

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

  Json ToJson() const;

 private:
  std::string text_;
  std::vector<int32_t> ids_;
  std::vector<switchyard::v1::TokenLogprob> logprobs_;
  switchyard::v1::GenerateEvent::Start start_;
  switchyard::v1::GenerateEvent::Finish finish_;
  std::optional<uint64_t> seed_;
};

}  // namespace switchyard::cli
