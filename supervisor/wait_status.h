#pragma once

#include <string>

namespace switchyard::supervisor {

// What waitpid told of a child: "exit status 3", "signal 9 (Killed)".
std::string DescribeWaitStatus(int wait_status);

}  // namespace switchyard::supervisor
