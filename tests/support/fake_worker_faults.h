#pragma once

#include <string>

namespace switchyard::testing {

// What a fake worker does wrong, from the environment:
//   SWITCHYARD_FAKE_FAULT=MODEL:PHASE:ACTION   MODEL may be *
//     PHASE   plan, start, master, grow, shrink, submit, token
//     ACTION  crash, hang, fail, slow
//   SWITCHYARD_FAKE_ONCE=FILE   only the process that manages to unlink FILE has the fault
class Faults {
 public:
  explicit Faults(const std::string& model);

  // At a phase: crashes or hangs if that is the fault, rests for half a second if it is `slow`, and
  // returns whether the phase has to fail.
  bool At(const std::string& phase);

 private:
  std::string phase_, action_;
};

}  // namespace switchyard::testing
