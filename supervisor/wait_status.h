#pragma once

#include <string>
#include <vector>

namespace switchyard::supervisor {

// What waitpid told of a child: "exit status 3", "signal 9 (Killed)".
std::string DescribeWaitStatus(int wait_status);

// How a child ended whose last lines on standard error were these; the log's of less than a warning
// are left out. What a person acts on is in the first line: "ended with exit status 1:
// a.safetensors: cannot be opened". The lines before that one follow.
std::string DescribeEnd(int wait_status, const std::vector<std::string>& last_lines);

}  // namespace switchyard::supervisor
