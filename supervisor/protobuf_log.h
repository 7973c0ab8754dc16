#pragma once

namespace switchyard::supervisor {

// Protobuf writes lines of its own to standard error, one for each string of a client that is not
// UTF-8. That client is told by its status, so such lines are dropped; any other becomes a warning
// in our log, one a second at most. For the whole process, before threads start.
void QuietProtobufLog();

}  // namespace switchyard::supervisor
