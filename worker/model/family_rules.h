#pragma once

// The few rules of families that are not a number or a flag: which layers have a window, which are
// mixtures, and where the rotary bases stand. Each reads its fields of config.json into the
// architecture, whose plain fields and layers are there already. Problems go to the reader's
// status.

#include "worker/model/architecture.h"
#include "worker/model/config_reader.h"
#include "worker/model/rope.h"

namespace switchyard::worker {

using WindowRule = void (*)(ConfigReader& config, Architecture& arch);
void NoWindows(ConfigReader& config, Architecture& arch);
void SameWindowEverywhere(ConfigReader& config, Architecture& arch);  // mistral: null is off
void Qwen3Windows(ConfigReader& config, Architecture& arch);     // from a layer on, if switched on
void Qwen3MoeWindows(ConfigReader& config, Architecture& arch);  // all layers, if switched on
void Gemma3Windows(ConfigReader& config, Architecture& arch);    // 5 local : 1 global
void GptOssWindows(ConfigReader& config, Architecture& arch);    // every other layer

using MixtureRule = void (*)(ConfigReader& config, Architecture& arch);
void NoMixture(ConfigReader& config, Architecture& arch);
void Qwen3Mixture(ConfigReader& config, Architecture& arch);
void GptOssMixture(ConfigReader& config, Architecture& arch);
void Glm4Mixture(ConfigReader& config, Architecture& arch);

using RopeRule = void (*)(ConfigReader& config, RopeDefaults defaults, Architecture& arch);
void OneRope(ConfigReader& config, RopeDefaults defaults, Architecture& arch);
void GptOssRope(ConfigReader& config, RopeDefaults defaults, Architecture& arch);
void GlobalAndLocalRope(ConfigReader& config, RopeDefaults defaults, Architecture& arch);  // gemma3

}  // namespace switchyard::worker
