#include "absl/strings/str_cat.h"
#include "cli/client.h"
#include "cli/commands/commands.h"
#include "cli/outcome.h"
#include "cli/output.h"
#include "cli/render.h"
#include "cli/utf8.h"

namespace switchyard::cli {
namespace {

int Show(Client& client, const Arguments& args, const std::string& to_split) {
  v1::TokenizeRequest request;
  request.set_model(args.model);
  request.set_text(to_split);
  request.set_no_special_tokens(args.no_special);
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
  Print(absl::StrCat(line, "\n", text->text(), "\n"));
  return kDone;
}

}  // namespace

int RunTokenize(const Arguments& args) {
  auto text = TextOrInput(args.text, "the text");
  if (!text.ok()) return Outcome(text.status());
  return WithClient(args.server, [&](Client& client) { return Show(client, args, *text); });
}

}  // namespace switchyard::cli
