#pragma once

#include <functional>
#include <string>

namespace switchyard {

// Calls `visit` with the directory of every control group that limits this process by `controller`
// ("memory", "cpu"), from its own to the root: of version 2, or of that controller's hierarchy of
// version 1.
void VisitControlGroups(const std::string& controller,
                        const std::function<void(const std::string& directory, bool v2)>& visit);

}  // namespace switchyard
