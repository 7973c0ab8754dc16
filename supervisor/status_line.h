#pragma once

#include <string>

#include "switchyard/v1/control.pb.h"

namespace switchyard::supervisor {

// All models in one line for people: "6 models: 2 resident (austen, joyce), 3 warm, 1 failed
// (whitman)". A model that has an error and is not failed is named as unwell. Behind them why the
// last reload failed, if it did.
std::string StatusLine(const switchyard::v1::Status& status);

}  // namespace switchyard::supervisor
