#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "switchyard/v1/control.pb.h"

namespace switchyard::cli {

using Json = nlohmann::ordered_json;  // keys in the order of the contract

// One line; what is not UTF-8 is replaced, NaN is null. As Print().
bool PrintJson(const Json& document);

const char* StateName(switchyard::v1::ModelState state);
const char* PhaseName(switchyard::v1::SwitchPhase phase);

Json ModelsJson(const google::protobuf::RepeatedPtrField<switchyard::v1::ModelStatus>& models);
Json StatusJson(const switchyard::v1::Status& status);
Json SwitchJson(const switchyard::v1::SwitchEvent& event);
Json ReloadJson(const switchyard::v1::ReloadConfigReply& reply);

std::string ModelsTable(
    const google::protobuf::RepeatedPtrField<switchyard::v1::ModelStatus>& models);
std::string StatusText(const switchyard::v1::Status& status);
// "added: a, b", a line for each of added, changed and removed that is not empty.
std::string ReloadText(const switchyard::v1::ReloadConfigReply& reply);
// "loading    12.3 MiB of 40.0 MiB  3.21 GB/s  2 s left"
std::string SwitchText(const switchyard::v1::SwitchEvent& event);

}  // namespace switchyard::cli
