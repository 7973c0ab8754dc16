#include "supervisor/credentials.h"

#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <memory>

#include "absl/strings/str_cat.h"
#include "common/json.h"
#include "common/secret_file.h"
#include "common/status_macros.h"

namespace switchyard::supervisor {
namespace {

template <auto Free>
struct Freed {
  template <typename T>
  void operator()(T* object) const {
    Free(object);
  }
};
using Bio = std::unique_ptr<BIO, Freed<BIO_free>>;
using Certificate = std::unique_ptr<X509, Freed<X509_free>>;
using Key = std::unique_ptr<EVP_PKEY, Freed<EVP_PKEY_free>>;

Bio Reader(const std::string& pem) {
  return Bio(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
}

// Nobody is there to be asked for a pass phrase.
int NoPhrase(char*, int, int, void*) { return -1; }

// gRPC 1.51 starts with whatever it is given, and then refuses every client.
absl::Status CheckPair(const switchyard::v1::SupervisorConfig& config,
                       const Credentials& credentials) {
  const Certificate certificate(
      PEM_read_bio_X509(Reader(credentials.certificate).get(), nullptr, NoPhrase, nullptr));
  if (certificate == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat(config.tls_certificate(), ": holds no certificate in PEM"));
  }
  const Key key(PEM_read_bio_PrivateKey(Reader(credentials.key).get(), nullptr, NoPhrase, nullptr));
  if (key == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat(config.tls_key(), ": holds no key in PEM, or one with a pass phrase"));
  }
  if (X509_check_private_key(certificate.get(), key.get()) == 1) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(config.tls_key(), ": is not the key of ", config.tls_certificate()));
}

}  // namespace

absl::StatusOr<Credentials> ReadCredentials(const switchyard::v1::SupervisorConfig& config) {
  const int given =
      !config.tls_certificate().empty() + !config.tls_key().empty() + !config.token_file().empty();
  if (given == 0) return Credentials();
  if (given < 3) {
    return absl::InvalidArgumentError(
        "--tls-certificate, --tls-key and --token-file go together: give all three");
  }
  Credentials credentials;
  ASSIGN_OR_RETURN(credentials.certificate, ReadFile(config.tls_certificate(), kMostSecretBytes));
  ASSIGN_OR_RETURN(credentials.key, ReadSecretFile(config.tls_key()));
  ASSIGN_OR_RETURN(credentials.token, ReadTokenFile(config.token_file()));
  RETURN_IF_ERROR(CheckPair(config, credentials));
  return credentials;
}

}  // namespace switchyard::supervisor
