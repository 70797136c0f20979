// Prints a job and its workers: status HOST:PORT JOB
//
// TLS and a token, from the files that RALLYPOINT_TLS_CA, RALLYPOINT_TLS_CERT, RALLYPOINT_TLS_KEY and
// RALLYPOINT_TOKEN_FILE name. Exit status: 0, 1 if the coordinator said no or could not be asked, 2 for a command line
// that makes no sense.
#include <algorithm>
#include <cctype>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <iterator>
#include <memory>
#include <stdexcept>
#include <string>

#include <grpcpp/grpcpp.h>

#include "rallypoint/v1/job_service.grpc.pb.h"

namespace pb = rallypoint::v1;

namespace {

constexpr std::chrono::seconds kTimeout{10};

// What the file holds that this variable names; nothing if it names none.
std::string FileOf(const char* variable) {
  const char* path = std::getenv(variable);
  if (path == nullptr || *path == '\0') return "";
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error(std::string(variable) + ": cannot read " + path);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::string Token() {
  std::string token = FileOf("RALLYPOINT_TOKEN_FILE");
  token.erase(token.find_last_not_of(" \t\r\n") + 1);
  return token;
}

bool IsLoopback(const std::string& address) {
  const bool is_number = address.find_first_not_of("0123456789.:") == std::string::npos;
  return (is_number && address.rfind("127.", 0) == 0) || address.rfind("localhost:", 0) == 0;
}

std::shared_ptr<grpc::ChannelCredentials> Credentials(const std::string& address, bool has_token) {
  grpc::SslCredentialsOptions tls;
  tls.pem_root_certs = FileOf("RALLYPOINT_TLS_CA");
  tls.pem_cert_chain = FileOf("RALLYPOINT_TLS_CERT");
  tls.pem_private_key = FileOf("RALLYPOINT_TLS_KEY");
  if (!tls.pem_root_certs.empty()) return grpc::SslCredentials(tls);
  if (has_token && !IsLoopback(address)) {
    throw std::runtime_error("the token would go to " + address + " in plain text: set RALLYPOINT_TLS_CA");
  }
  return grpc::InsecureChannelCredentials();
}

class Status {
 public:
  Status(const std::string& address, const std::string& job) : parent_("jobs/" + job), token_(Token()) {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
    stub_ = pb::JobService::NewStub(
        grpc::CreateCustomChannel(address, Credentials(address, !token_.empty()), arguments));
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
    if (!token_.empty()) context.AddMetadata("authorization", "Bearer " + token_);
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
  std::string token_;
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
