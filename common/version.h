#pragma once

namespace switchyard {

const char* Version();

}  // namespace switchyard
