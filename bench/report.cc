#include "bench/report.h"

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

namespace switchyard::bench {

double Median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
}

double Percentile(std::vector<double> values, double p) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  return values[static_cast<size_t>(p * static_cast<double>(values.size() - 1) + 0.5)];
}

void Report::Add(std::string name, double value, std::string unit, double limit,
                 std::string limit_name) {
  rows_.push_back({std::move(name), std::move(unit), std::move(limit_name), value, limit});
}

void Report::Print() const {
  if (json_) {
    nlohmann::json results = nlohmann::json::array();
    for (const Row& row : rows_) {
      nlohmann::json result = {{"name", row.name}, {"value", row.value}, {"unit", row.unit}};
      if (row.limit > 0) {
        result["limit"] = row.limit;
        result["limit_name"] = row.limit_name;
        result["ratio"] = row.value / row.limit;
      }
      results.push_back(std::move(result));
    }
    std::printf("%s\n", nlohmann::json{{"title", title_}, {"results", results}}.dump().c_str());
    return;
  }
  std::printf("%s\n", title_.c_str());
  for (const Row& row : rows_) {
    std::printf("  %-44s %10.2f %-8s", row.name.c_str(), row.value, row.unit.c_str());
    if (row.limit > 0) {
      std::printf("  %5.1f%% of %.2f (%s)", 100 * row.value / row.limit, row.limit,
                  row.limit_name.c_str());
    }
    std::printf("\n");
  }
}

}  // namespace switchyard::bench
