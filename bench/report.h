#pragma once

// Results beside their limits: a table for people, or one JSON document.

#include <string>
#include <vector>

namespace switchyard::bench {

// The median of `values`.
double Median(std::vector<double> values);
// The value below which a part `p` of them lies: 0 the least, 1 the largest.
double Percentile(std::vector<double> values, double p);

class Report {
 public:
  Report(std::string title, bool json) : title_(std::move(title)), json_(json) {}

  // One result. `limit` in the same unit, 0 for none; `limit_name` says what it is.
  void Add(std::string name, double value, std::string unit, double limit = 0,
           std::string limit_name = "");
  // Prints everything to standard output.
  void Print() const;

 private:
  struct Row {
    std::string name, unit, limit_name;
    double value, limit;
  };
  std::string title_;
  bool json_;
  std::vector<Row> rows_;
};

}  // namespace switchyard::bench
