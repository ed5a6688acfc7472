// Preloaded into a process and its children: no name is looked up and nothing beyond this machine is reached; who tries
// is written to the file that NO_NETWORK_LOG names. Native libraries are seen too, which patches in Python are not.
#include <arpa/inet.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <string>

namespace {

void note(const std::string& line) {
  const char* path = std::getenv("NO_NETWORK_LOG");
  if (path == nullptr) return;
  const int file = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (file < 0) return;
  const std::string whole = line + "\n";
  [[maybe_unused]] const auto written = write(file, whole.data(), whole.size());
  close(file);
}

template <class Function>
Function* next(const char* name) {
  return reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
}

bool is_here(const sockaddr* address) {  // as Ray's processes talk to each other
  if (address->sa_family == AF_INET) {
    return ntohl(reinterpret_cast<const sockaddr_in*>(address)->sin_addr.s_addr) >> 24 == IN_LOOPBACKNET;
  }
  const in6_addr& six = reinterpret_cast<const sockaddr_in6*>(address)->sin6_addr;
  return IN6_IS_ADDR_LOOPBACK(&six) || (IN6_IS_ADDR_V4MAPPED(&six) && six.s6_addr[12] == IN_LOOPBACKNET);
}

bool refused(const sockaddr* address, const char* call) {
  if (address == nullptr || (address->sa_family != AF_INET && address->sa_family != AF_INET6)) return false;
  if (is_here(address)) return false;
  note(call);
  errno = ENETUNREACH;
  return true;
}

}  // namespace

extern "C" {

int getaddrinfo(const char* node, const char* service, const addrinfo* hints, addrinfo** found) {
  for (const char* here : {"127.0.0.1", "::1", "localhost", "0.0.0.0", "::"}) {
    if (node == nullptr || std::string(node) == here) return next<decltype(getaddrinfo)>("getaddrinfo")(node, service, hints, found);
  }
  note(std::string("getaddrinfo ") + (node != nullptr ? node : ""));
  return EAI_AGAIN;
}

hostent* gethostbyname(const char* name) noexcept(noexcept(gethostbyname(name))) {
  note(std::string("gethostbyname ") + name);
  return nullptr;
}

int connect(int socket, const sockaddr* address, socklen_t length) {
  return refused(address, "connect") ? -1 : next<decltype(connect)>("connect")(socket, address, length);
}

ssize_t sendto(int socket, const void* data, size_t size, int flags, const sockaddr* address, socklen_t length) {
  if (refused(address, "sendto")) return -1;
  return next<decltype(sendto)>("sendto")(socket, data, size, flags, address, length);
}

}  // extern "C"
