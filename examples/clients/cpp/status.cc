// Prints a job and its workers: status HOST:PORT JOB
//
// Exit status: 0, 1 if the coordinator said no or could not be asked, 2 for a command line that makes no sense.
#include <algorithm>
#include <cctype>
#include <chrono>
#include <iostream>
#include <memory>
#include <stdexcept>
#include <string>

#include <grpcpp/grpcpp.h>

#include "rallypoint/v1/job_service.grpc.pb.h"

namespace pb = rallypoint::v1;

namespace {

constexpr std::chrono::seconds kTimeout{10};

class Status {
 public:
  Status(const std::string& address, const std::string& job) : parent_("jobs/" + job) {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
    stub_ = pb::JobService::NewStub(
        grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments));
  }

  void Print() {
    pb::GetJobRequest request;
    request.set_name(parent_);
    PrintJob(Call<pb::GetJobResponse>(&pb::JobService::Stub::GetJob, request).job());
    PrintWorkers();
  }

 private:
  // Calls a method; throws the coordinator's sentence if it says no.
  template <typename Response, typename Request>
  Response Call(grpc::Status (pb::JobService::Stub::*method)(grpc::ClientContext*, const Request&, Response*),
                const Request& request) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + kTimeout);
    Response response;
    const grpc::Status status = (stub_.get()->*method)(&context, request, &response);
    if (!status.ok()) throw std::runtime_error(status.error_message());
    return response;
  }

  void PrintWorkers() {
    pb::ListWorkersRequest request;
    request.set_parent(parent_);
    do {
      const auto page = Call<pb::ListWorkersResponse>(&pb::JobService::Stub::ListWorkers, request);
      for (const pb::Worker& worker : page.workers()) {
        std::cout << "  rank " << worker.rank() << " on " << worker.node() << ": "
                  << Word(pb::WorkerState_Name(worker.state()), "WORKER_STATE_") << ", pid " << worker.pid() << '\n';
      }
      request.set_page_token(page.next_page_token());
    } while (!request.page_token().empty());
  }

  static void PrintJob(const pb::Job& job) {
    std::cout << job.name().substr(std::string("jobs/").size()) << ": "
              << Word(pb::JobState_Name(job.state()), "JOB_STATE_") << ", "
              << (job.has_round() ? "round " + std::to_string(job.round()) : "no round yet") << ", restart "
              << job.restart_count() << " of " << job.spec().max_restarts() << ": " << job.message() << '\n';
  }

  // JOB_STATE_RUNNING -> running. A value that this copy of the protos does not know has no name.
  static std::string Word(std::string name, const std::string& prefix) {
    if (name.empty()) return "unknown";
    name.erase(0, prefix.size());
    std::transform(name.begin(), name.end(), name.begin(), [](unsigned char letter) { return std::tolower(letter); });
    return name;
  }

  std::string parent_;
  std::unique_ptr<pb::JobService::Stub> stub_;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::cerr << "usage: status HOST:PORT JOB\n";
    return 2;
  }
  try {
    Status(argv[1], argv[2]).Print();
  } catch (const std::runtime_error& error) {
    std::cerr << "status: " << error.what() << '\n';
    return 1;
  }
  return 0;
}
