#include "cli/render.h"

#include <gtest/gtest.h>

#include "cli/render_devices.h"

namespace switchyard::cli {
namespace {

namespace v1 = ::switchyard::v1;

TEST(Render, NamesOfTheContract) {
  EXPECT_STREQ(StateName(v1::COLD), "cold");
  EXPECT_STREQ(StateName(v1::WARM), "warm");
  EXPECT_STREQ(StateName(v1::LOADING), "loading");
  EXPECT_STREQ(StateName(v1::RESIDENT), "resident");
  EXPECT_STREQ(StateName(v1::DRAINING), "draining");
  EXPECT_STREQ(StateName(v1::FAILED), "failed");
  EXPECT_STREQ(PhaseName(v1::QUEUED), "queued");
  EXPECT_STREQ(PhaseName(v1::SWITCH_DRAINING), "draining");
  EXPECT_STREQ(PhaseName(v1::RELEASING), "releasing");
  EXPECT_STREQ(PhaseName(v1::SWITCH_LOADING), "loading");
  EXPECT_STREQ(PhaseName(v1::READY), "ready");
  EXPECT_STREQ(PhaseName(v1::SWITCH_FAILED), "failed");
}

TEST(Render, SwitchLine) {
  v1::SwitchEvent event;
  event.set_phase(v1::SWITCH_LOADING);
  event.set_bytes_done(1);
  event.set_bytes_total(2);
  event.set_gb_per_s(1.5);
  EXPECT_EQ(SwitchJson(event).dump(),
            R"({"phase":"loading","bytes_done":1,"bytes_total":2,"gb_per_s":1.5,)"
            R"("seconds_left":0.0,"queue_position":0})");
}

TEST(Render, SwitchForPeople) {
  v1::SwitchEvent event;
  event.set_phase(v1::QUEUED);
  event.set_queue_position(2);
  event.set_bytes_total(1 << 20);
  EXPECT_EQ(SwitchText(event), "queued     number 2 in the queue  0 B of 1.00 MiB");
  event.set_phase(v1::SWITCH_LOADING);
  event.set_queue_position(0);
  event.set_bytes_done(1 << 19);
  event.set_gb_per_s(1.5);
  event.set_seconds_left(2);
  EXPECT_EQ(SwitchText(event), "loading    512.0 KiB of 1.00 MiB  1.50 GB/s  2 s left");
}

TEST(Render, StatusDocument) {
  v1::Status status;
  v1::DeviceStatus* device = status.add_devices();
  device->set_name("cpu");
  device->set_capacity_bytes(10);
  device->add_leases()->set_model("a");
  status.mutable_host()->set_budget_bytes(5);
  v1::ModelStatus* model = status.add_models();
  model->set_name("a");
  model->set_state(v1::RESIDENT);
  status.set_version("1");
  status.set_default_model("a");
  EXPECT_EQ(StatusJson(status).dump(),
            R"({"devices":[{"name":"cpu","capacity_bytes":10,"reserve_bytes":0,"leased_bytes":0,)"
            R"("foreign_bytes":0,"free_bytes":0,"leases":[{"model":"a","fixed_bytes":0,)"
            R"("weight_bytes":0,"kv_bytes":0}],"utilization_percent":null,"watts":null,)"
            R"("celsius":null,"joules":null,"processes":null}],)"
            R"("host":{"budget_bytes":5,"used_bytes":0},)"
            R"("models":[{"name":"a","family":"","state":"resident","default":false,)"
            R"("pinned":false,"fixed_bytes":0,"weight_bytes":0,"resident_bytes":0,"kv_bytes":0,)"
            R"("error":"","device":"","master_bytes":0,"running":0,"queued":0,"paused":0,)"
            R"("worker_pid":0,"requests":0,"tokens":0,"restarts":0,"idle_s":0.0,)"
            R"("last_failure":"","last_failure_age_s":0.0,"prompt_tokens":0,"joules":null,)"
            R"("joules_per_token":null,"kv_blocks_used":0,"kv_blocks_total":0,"loads":0,)"
            R"("streamed":false,"notes":[]}],)"
            R"("uptime_s":0.0,"version":"1","default_model":"a","reload_error":"",)"
            R"("reload_error_age_s":0.0})");
}

// A GPU and a model of which everything is known.
v1::Status Telling() {
  v1::Status status;
  v1::DeviceStatus* device = status.add_devices();
  device->set_name("GPU-1");
  device->set_utilization_percent(0);
  device->set_watts(412.5);
  device->set_celsius(54);
  device->set_joules(12345.6);
  auto* processes = device->mutable_processes()->mutable_processes();
  v1::DeviceStatus::Process* ours = processes->Add();
  ours->set_pid(100);
  ours->set_bytes(3 << 20);
  ours->set_model("a");
  processes->Add()->set_pid(7);
  v1::ModelStatus* model = status.add_models();
  model->set_name("a");
  model->set_tokens(50);
  model->set_prompt_tokens(9);
  model->set_joules(1000);
  model->set_joules_per_token(20);
  status.add_models()->set_name("b");
  return status;
}

TEST(Render, EnergyDocument) {
  const Json document = StatusJson(Telling());
  const Json& device = document["devices"][0];
  EXPECT_EQ(device["utilization_percent"].dump(), "0.0");
  EXPECT_EQ(device["watts"], 412.5);
  EXPECT_EQ(device["celsius"], 54);
  EXPECT_EQ(device["joules"], 12345.6);
  EXPECT_EQ(device["processes"].dump(),
            R"([{"pid":100,"bytes":3145728,"model":"a"},{"pid":7,"bytes":null,"model":""}])");
  EXPECT_EQ(document["models"][0]["prompt_tokens"], 9);
  EXPECT_EQ(document["models"][0]["joules"], 1000);
  EXPECT_EQ(document["models"][0]["joules_per_token"], 20);
  EXPECT_TRUE(document["models"][1]["joules"].is_null());
  v1::Status nobody;
  nobody.add_devices()->mutable_processes();
  EXPECT_EQ(StatusJson(nobody)["devices"][0]["processes"].dump(), "[]");
}

TEST(Render, EnergyForPeople) {
  const std::string text = StatusText(Telling());
  EXPECT_NE(text.find("\n  0% busy, 412 W, 54 C, 12.3 kJ since start\n"
                      "  PROCESS    MEMORY  MODEL\n"
                      "  100      3.00 MiB  a\n"
                      "  7               -  (not ours)\n"),
            std::string::npos)
      << text;
  EXPECT_NE(text.find("FIXED  TOKENS  ENERGY  J/TOKEN  NOTES"), std::string::npos) << text;
  v1::Status some;
  some.add_devices()->set_celsius(54);
  EXPECT_NE(StatusText(some).find("\n  54 C\n"), std::string::npos);
}

TEST(Render, ADeviceThatTellsNothingIsNotAskedFor) {
  v1::Status status;
  status.add_devices()->set_name("cpu");
  status.add_models()->set_name("a");
  const std::string text = StatusText(status);
  for (const char* word : {"busy", "since start", "PROCESS", "ENERGY", "TOKENS"}) {
    EXPECT_EQ(text.find(word), std::string::npos) << word << " in\n" << text;
  }
}

TEST(Render, Joules) {
  EXPECT_EQ(HumanJoules(0), "0 J");
  EXPECT_EQ(HumanJoules(999), "999 J");
  EXPECT_EQ(HumanJoules(12345.6), "12.3 kJ");
  EXPECT_EQ(HumanJoules(1.25e9), "1250.0 MJ");
}

std::string NotesOf(uint32_t restarts, const std::string& error, const std::string& last) {
  google::protobuf::RepeatedPtrField<v1::ModelStatus> models;
  v1::ModelStatus* model = models.Add();
  model->set_name("a");
  model->set_restarts(restarts);
  model->set_error(error);
  model->set_last_failure(last);
  const std::string table = ModelsTable(models);
  const std::string row = table.substr(table.find('\n') + 1);
  const size_t notes = table.find("NOTES");
  return row.size() > notes ? row.substr(notes, row.size() - notes - 1) : "";
}

TEST(Render, AFailureThatIsOverIsToldAsPast) {
  EXPECT_EQ(NotesOf(0, "", ""), "");
  EXPECT_EQ(NotesOf(2, "", "killed by signal 9\nlog"), "restarts 2; last: killed by signal 9");
  EXPECT_EQ(NotesOf(0, "", "no memory"), "last: no memory");
  EXPECT_EQ(NotesOf(1, "", ""), "restarts 1");
  EXPECT_EQ(NotesOf(3, "it never fits\nlog", "it never fits\nlog"), "it never fits");
}

TEST(Render, NothingOfAServerMovesTheCursor) {
  v1::Status status;
  status.set_version("1\x1B[2J");
  status.add_devices()->set_name("cpu\x1B[2J");
  auto* processes = status.mutable_devices(0)->mutable_processes()->mutable_processes();
  processes->Add()->set_model("\x1B[2J");
  status.add_models()->set_error("\x1B[2J");
  EXPECT_EQ(StatusText(status).find('\x1B'), std::string::npos);
}

TEST(Render, Reload) {
  v1::ReloadConfigReply reply;
  EXPECT_EQ(ReloadText(reply), "nothing has changed\n");
  EXPECT_EQ(ReloadJson(reply).dump(),
            R"({"added":[],"changed":[],"removed":[],"devices":[],"default_model":"",)"
            R"("default_model_before":"","waits_for_restart":[],"not_planned":[],)"
            R"("tried_again":[],"problems":[]})");
  reply.add_added("a");
  reply.add_added("b");
  reply.add_removed("c");
  reply.set_default_model("a");
  EXPECT_EQ(ReloadText(reply), "added: a, b\nremoved: c\n");
  reply.set_default_model_before("c");
  EXPECT_EQ(ReloadText(reply), "added: a, b\nremoved: c\ndefault model: a, before c\n");
  EXPECT_EQ(ReloadJson(reply).dump(),
            R"({"added":["a","b"],"changed":[],"removed":["c"],"devices":[],"default_model":"a",)"
            R"("default_model_before":"c","waits_for_restart":[],"not_planned":[],)"
            R"("tried_again":[],"problems":[]})");
}

TEST(Render, ReloadThatLeavesSomethingForTheNextStart) {
  v1::ReloadConfigReply reply;
  reply.add_waits_for_restart("listen");
  reply.add_waits_for_restart("queue_limit");
  EXPECT_EQ(ReloadText(reply), "nothing has changed\nwaits for a restart: listen, queue_limit\n");
  EXPECT_EQ(ReloadJson(reply)["waits_for_restart"].dump(), R"(["listen","queue_limit"])");
}

TEST(Render, ReloadThatCouldNotPlanAModel) {
  v1::ReloadConfigReply reply;
  reply.add_not_planned("a");
  EXPECT_EQ(ReloadText(reply),
            "nothing has changed\nnot planned, tried again within 5 minutes: a\n");
  EXPECT_EQ(ReloadJson(reply)["not_planned"].dump(), R"(["a"])");
}

TEST(Render, ReloadAfterWhichSomeCannotBeServed) {
  v1::ReloadConfigReply reply;
  reply.add_tried_again("b");
  reply.add_problems()->set_model("a");
  reply.mutable_problems(0)->set_reason("no\x1B such file");
  EXPECT_EQ(ReloadText(reply),
            "had failed, tried again: b\ncannot be served: a: no\\x1B such file\n");
  EXPECT_EQ(ReloadJson(reply)["tried_again"].dump(), R"(["b"])");
  EXPECT_EQ(ReloadJson(reply)["problems"].dump(),
            R"([{"model":"a","reason":"no\u001b such file"}])");
}

TEST(Render, StatusTellsOfTheDefaultAndOfAReloadThatFailed) {
  v1::Status status;
  status.set_version("1");
  EXPECT_EQ(StatusText(status).find("default"), std::string::npos);
  EXPECT_EQ(StatusText(status).find("reload"), std::string::npos);
  status.set_default_model("a");
  status.set_reload_error("c.textproto:1:1: listn\x1B: no such field\nc.textproto:2:1: more");
  status.set_reload_error_age_s(12.4);
  v1::ModelStatus* model = status.add_models();
  model->set_is_default(true);
  const std::string begin = "switchyard 1, up 0 s\ndefault model: a";
  const std::string end =
      "\nthe last reload failed 12 s ago and changed nothing: c.textproto:1:1: listn\\x1B: no such "
      "field\nc.textproto:2:1: more\n";
  EXPECT_EQ(StatusText(status).substr(0, begin.size() + end.size()), begin + end);
  model->set_state(v1::FAILED);
  const std::string failed = ", which has failed: requests that name no model are refused";
  EXPECT_EQ(StatusText(status).substr(0, begin.size() + failed.size() + end.size()),
            begin + failed + end);
}

TEST(Render, ReloadOfDevices) {
  v1::ReloadConfigReply reply;
  auto& device = *reply.add_devices();
  device.set_name("cpu");
  device.set_capacity_bytes(64 << 20);
  device.set_capacity_bytes_before(32 << 20);
  EXPECT_EQ(ReloadText(reply), "device cpu: 64.0 MiB, before 32.0 MiB\n");
  EXPECT_EQ(ReloadJson(reply)["devices"].dump(),
            R"([{"name":"cpu","capacity_bytes":67108864,"capacity_bytes_before":33554432}])");
}

}  // namespace
}  // namespace switchyard::cli
