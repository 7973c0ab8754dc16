#include "supervisor/adoption.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/human.h"
#include "supervisor/host_share.h"

namespace switchyard::supervisor {
namespace {

std::string MastersOf(const std::string& model) { return absl::StrCat("master/", model, "/"); }

// "": it is good for `entry`, of which it has the name.
std::string Flaw(const FoundDescriptor& found, const ModelEntry& entry) {
  const uint64_t image = entry.plan.image_bytes();
  if (!found.memfd) return "it is not a memfd that can be read";
  if (found.bytes != image) {
    return absl::StrCat("it has ", found.bytes, " bytes, and the image ", image);
  }
  if (!found.sealed) return "it is not sealed, so it is not complete";
  return "";
}

// Of one whose name is not that of any model's master.
std::string Stranger(const FoundDescriptor& found, const std::vector<ModelEntry>& catalog) {
  for (const ModelEntry& entry : catalog) {
    if (!absl::StartsWith(found.name, MastersOf(entry.model.name()))) continue;
    if (!entry.problem.ok()) return absl::StrCat(entry.model.name(), " cannot be served");
    return absl::StrCat("it is of another image than ", entry.model.name(),
                        " has now: its checkpoint or options have changed");
  }
  return "no model has a master of that name";
}

std::vector<const ModelEntry*> InOrder(const std::vector<ModelEntry>& catalog) {
  std::vector<const ModelEntry*> models;
  for (const ModelEntry& entry : catalog) {
    if (entry.problem.ok()) models.push_back(&entry);
  }
  std::stable_partition(models.begin(), models.end(),
                        [](const ModelEntry* entry) { return entry->model.pinned(); });
  return models;
}

}  // namespace

// Printable, and without the colon that separates names in LISTEN_FDNAMES: such is a model's name
// and a key, of which the longest are half of the 255 characters that a name may have.
std::string MasterName(const std::string& model, const std::string& image_key, uint64_t bytes) {
  if (image_key.empty()) return "";
  return absl::StrCat(MastersOf(model), image_key, "/", bytes);
}

std::vector<Adoption> ChooseAdoptions(const std::vector<FoundDescriptor>& found,
                                      const std::vector<ModelEntry>& catalog,
                                      uint64_t host_budget) {
  std::vector<Adoption> adoptions(found.size());
  uint64_t free = host_budget;
  for (const ModelEntry* entry : InOrder(catalog)) {
    const std::string& model = entry->model.name();
    const uint64_t image = entry->plan.image_bytes();
    const std::string name = MasterName(model, entry->plan.image_key(), image);
    bool adopted = false;
    for (size_t i = 0; !name.empty() && i < found.size(); ++i) {
      if (found[i].name != name) continue;
      std::string& refused = adoptions[i].refused;
      refused = adopted ? "it is the second of that name" : Flaw(found[i], *entry);
      if (refused.empty() && image > free) {
        refused =
            absl::StrCat("it does not fit what is left of the host budget, ", HumanBytes(free));
      }
      if (!refused.empty()) continue;
      adopted = true;
      adoptions[i].model = model;
      free -= image;
    }
  }
  for (size_t i = 0; i < found.size(); ++i) {
    Adoption& adoption = adoptions[i];
    if (adoption.model.empty() && adoption.refused.empty()) {
      adoption.refused = Stranger(found[i], catalog);
    }
  }
  return adoptions;
}

}  // namespace switchyard::supervisor
