#include <cstdio>

#include "absl/strings/str_cat.h"
#include "cli/client.h"
#include "cli/commands/commands.h"
#include "cli/outcome.h"
#include "cli/render.h"
#include "cli/utf8.h"

namespace switchyard::cli {
namespace {

int Show(Client& client, const Arguments& args) {
  v1::TokenizeRequest request;
  request.set_model(args.model);
  request.set_text(TextOrInput(args.text));
  request.set_no_special_tokens(args.no_special);
  if (absl::Status status = CheckUtf8(request.text(), "the text"); !status.ok()) {
    return Outcome(status);
  }
  auto ids = client.Tokenize(request);
  if (!ids.ok()) return Outcome(ids.status());

  v1::DetokenizeRequest back;
  back.set_model(args.model);
  *back.mutable_ids() = ids->ids();
  back.set_skip_special_tokens(true);
  auto text = client.Detokenize(back);
  if (!text.ok()) return Outcome(text.status());

  if (args.json) {
    Json array = Json::array();
    for (int32_t id : ids->ids()) array.push_back(id);
    PrintJson({{"ids", array}, {"text", text->text()}});
    return kDone;
  }
  std::string line;
  for (int32_t id : ids->ids()) absl::StrAppend(&line, line.empty() ? "" : " ", id);
  std::printf("%s\n%s\n", line.c_str(), text->text().c_str());
  return kDone;
}

}  // namespace

int RunTokenize(const Arguments& args) {
  return WithClient(args.address, [&](Client& client) { return Show(client, args); });
}

}  // namespace switchyard::cli
