"""The document of each command: mypy holds what is printed to these types.

``render.document`` is called with the fields, except ``schema``. A command has several documents if
its options change what it prints. If its failures say more than :class:`parts.Failed` does, a class
of the same name with ``Refused`` behind it is beside the first. ``tools/make_schemas.py`` reads
this table.
"""

from typing import Literal, Protocol, Unpack, overload

from sev_attest.cli.documents.advisories import Advisories, SnpAdvisories
from sev_attest.cli.documents.certs import (
    CertsGenerateOca,
    CertsJoin,
    CertsShow,
    CertsSignPek,
    CertsSplit,
    SecretBuild,
)
from sev_attest.cli.documents.domains import (
    DomainCapabilities,
    DomainCheck,
    DomainPrepare,
)
from sev_attest.cli.documents.evidence import EvidenceShow, EvidenceVerify
from sev_attest.cli.documents.guests import (
    Firmware,
    Measure,
    MeasureManifest,
    MeasureTable,
    Policy,
    VmsaBuild,
    VmsaDiff,
    VmsaShow,
)
from sev_attest.cli.documents.hosts import (
    GuestCheck,
    HostCheck,
    HostCsr,
    HostExport,
    HostProvision,
    HostReset,
    HostRotate,
    HostStatus,
)
from sev_attest.cli.documents.id_blocks import (
    SnpIdBlockBuild,
    SnpIdBlockCheck,
    SnpIdBlockShow,
)
from sev_attest.cli.documents.ledgers import (
    LedgerAcceptHead,
    LedgerClose,
    LedgerExpire,
    LedgerExport,
    LedgerExported,
    LedgerInit,
    LedgerList,
    LedgerPrune,
    LedgerSegment,
    LedgerShow,
    LedgerVerify,
)
from sev_attest.cli.documents.requirements import RequirementsCheck, RequirementsInit
from sev_attest.cli.documents.schemas import Schema
from sev_attest.cli.documents.sev import (
    Launch,
    LaunchPlan,
    ReportVerify,
    Session,
    Validate,
    Verify,
    VerifyEach,
)
from sev_attest.cli.documents.simulations import (
    SimulateDestroy,
    SimulateDomlaunchsecinfo,
    SimulateDomsetlaunchsecstate,
    SimulateExport,
    SimulateGuest,
    SimulateGuestSnp,
    SimulateHost,
    SimulateList,
    SimulateResume,
    SimulateSnpReport,
    SimulateStart,
    SimulateStartSnp,
)
from sev_attest.cli.documents.snp import (
    SnpCerts,
    SnpMeasure,
    SnpMeasureManifest,
    SnpMeasureTable,
    SnpVerify,
)
from sev_attest.cli.documents.snp_release import (
    GuestOpen,
    GuestRequest,
    SnpChallengeMade,
    SnpRelease,
)
from sev_attest.cli.documents.snp_shown import SnpShow


class Printer(Protocol):
    """Prints the document of a command, whose schema is version 1 of that name."""

    @overload
    def __call__(self, of: Literal["advisories"], /, **_: Unpack[Advisories]) -> None: ...
    @overload
    def __call__(self, of: Literal["advisories"], /, **_: Unpack[SnpAdvisories]) -> None: ...
    @overload
    def __call__(
        self, of: Literal["certs generate-oca"], /, **_: Unpack[CertsGenerateOca]
    ) -> None: ...
    @overload
    def __call__(self, of: Literal["certs join"], /, **_: Unpack[CertsJoin]) -> None: ...
    @overload
    def __call__(self, of: Literal["certs show"], /, **_: Unpack[CertsShow]) -> None: ...
    @overload
    def __call__(self, of: Literal["certs sign-pek"], /, **_: Unpack[CertsSignPek]) -> None: ...
    @overload
    def __call__(self, of: Literal["certs split"], /, **_: Unpack[CertsSplit]) -> None: ...
    @overload
    def __call__(
        self, of: Literal["domain capabilities"], /, **_: Unpack[DomainCapabilities]
    ) -> None: ...
    @overload
    def __call__(self, of: Literal["domain check"], /, **_: Unpack[DomainCheck]) -> None: ...
    @overload
    def __call__(self, of: Literal["domain prepare"], /, **_: Unpack[DomainPrepare]) -> None: ...
    @overload
    def __call__(self, of: Literal["evidence show"], /, **_: Unpack[EvidenceShow]) -> None: ...
    @overload
    def __call__(self, of: Literal["evidence verify"], /, **_: Unpack[EvidenceVerify]) -> None: ...
    @overload
    def __call__(self, of: Literal["firmware"], /, **_: Unpack[Firmware]) -> None: ...
    @overload
    def __call__(self, of: Literal["guest check"], /, **_: Unpack[GuestCheck]) -> None: ...
    @overload
    def __call__(self, of: Literal["guest open"], /, **_: Unpack[GuestOpen]) -> None: ...
    @overload
    def __call__(self, of: Literal["guest request"], /, **_: Unpack[GuestRequest]) -> None: ...
    @overload
    def __call__(self, of: Literal["host check"], /, **_: Unpack[HostCheck]) -> None: ...
    @overload
    def __call__(self, of: Literal["host csr"], /, **_: Unpack[HostCsr]) -> None: ...
    @overload
    def __call__(self, of: Literal["host export"], /, **_: Unpack[HostExport]) -> None: ...
    @overload
    def __call__(self, of: Literal["host provision"], /, **_: Unpack[HostProvision]) -> None: ...
    @overload
    def __call__(self, of: Literal["host reset"], /, **_: Unpack[HostReset]) -> None: ...
    @overload
    def __call__(self, of: Literal["host rotate"], /, **_: Unpack[HostRotate]) -> None: ...
    @overload
    def __call__(self, of: Literal["host status"], /, **_: Unpack[HostStatus]) -> None: ...
    @overload
    def __call__(self, of: Literal["launch"], /, **_: Unpack[Launch]) -> None: ...
    @overload
    def __call__(self, of: Literal["launch"], /, **_: Unpack[LaunchPlan]) -> None: ...
    @overload
    def __call__(
        self, of: Literal["ledger accept-head"], /, **_: Unpack[LedgerAcceptHead]
    ) -> None: ...
    @overload
    def __call__(self, of: Literal["ledger close"], /, **_: Unpack[LedgerClose]) -> None: ...
    @overload
    def __call__(self, of: Literal["ledger expire"], /, **_: Unpack[LedgerExpire]) -> None: ...
    @overload
    def __call__(self, of: Literal["ledger export"], /, **_: Unpack[LedgerExport]) -> None: ...
    @overload
    def __call__(self, of: Literal["ledger export"], /, **_: Unpack[LedgerExported]) -> None: ...
    @overload
    def __call__(self, of: Literal["ledger init"], /, **_: Unpack[LedgerInit]) -> None: ...
    @overload
    def __call__(self, of: Literal["ledger list"], /, **_: Unpack[LedgerList]) -> None: ...
    @overload
    def __call__(self, of: Literal["ledger prune"], /, **_: Unpack[LedgerPrune]) -> None: ...
    @overload
    def __call__(self, of: Literal["ledger segment"], /, **_: Unpack[LedgerSegment]) -> None: ...
    @overload
    def __call__(self, of: Literal["ledger show"], /, **_: Unpack[LedgerShow]) -> None: ...
    @overload
    def __call__(self, of: Literal["ledger verify"], /, **_: Unpack[LedgerVerify]) -> None: ...
    @overload
    def __call__(self, of: Literal["measure"], /, **_: Unpack[Measure]) -> None: ...
    @overload
    def __call__(self, of: Literal["measure"], /, **_: Unpack[MeasureTable]) -> None: ...
    @overload
    def __call__(self, of: Literal["measure"], /, **_: Unpack[MeasureManifest]) -> None: ...
    @overload
    def __call__(self, of: Literal["policy"], /, **_: Unpack[Policy]) -> None: ...
    @overload
    def __call__(self, of: Literal["report verify"], /, **_: Unpack[ReportVerify]) -> None: ...
    @overload
    def __call__(
        self, of: Literal["requirements check"], /, **_: Unpack[RequirementsCheck]
    ) -> None: ...
    @overload
    def __call__(
        self, of: Literal["requirements init"], /, **_: Unpack[RequirementsInit]
    ) -> None: ...
    @overload
    def __call__(self, of: Literal["schema"], /, **_: Unpack[Schema]) -> None: ...
    @overload
    def __call__(self, of: Literal["secret build"], /, **_: Unpack[SecretBuild]) -> None: ...
    @overload
    def __call__(self, of: Literal["session"], /, **_: Unpack[Session]) -> None: ...
    @overload
    def __call__(
        self, of: Literal["simulate destroy"], /, **_: Unpack[SimulateDestroy]
    ) -> None: ...
    @overload
    def __call__(
        self, of: Literal["simulate domlaunchsecinfo"], /, **_: Unpack[SimulateDomlaunchsecinfo]
    ) -> None: ...
    @overload
    def __call__(
        self,
        of: Literal["simulate domsetlaunchsecstate"],
        /,
        **_: Unpack[SimulateDomsetlaunchsecstate],
    ) -> None: ...
    @overload
    def __call__(self, of: Literal["simulate export"], /, **_: Unpack[SimulateExport]) -> None: ...
    @overload
    def __call__(self, of: Literal["simulate guest"], /, **_: Unpack[SimulateGuest]) -> None: ...
    @overload
    def __call__(self, of: Literal["simulate guest"], /, **_: Unpack[SimulateGuestSnp]) -> None: ...
    @overload
    def __call__(self, of: Literal["simulate host"], /, **_: Unpack[SimulateHost]) -> None: ...
    @overload
    def __call__(self, of: Literal["simulate list"], /, **_: Unpack[SimulateList]) -> None: ...
    @overload
    def __call__(self, of: Literal["simulate resume"], /, **_: Unpack[SimulateResume]) -> None: ...
    @overload
    def __call__(
        self, of: Literal["simulate snp-report"], /, **_: Unpack[SimulateSnpReport]
    ) -> None: ...
    @overload
    def __call__(self, of: Literal["simulate start"], /, **_: Unpack[SimulateStart]) -> None: ...
    @overload
    def __call__(self, of: Literal["simulate start"], /, **_: Unpack[SimulateStartSnp]) -> None: ...
    @overload
    def __call__(self, of: Literal["snp-certs"], /, **_: Unpack[SnpCerts]) -> None: ...
    @overload
    def __call__(
        self, of: Literal["snp-challenge-made"], /, **_: Unpack[SnpChallengeMade]
    ) -> None: ...
    @overload
    def __call__(
        self, of: Literal["snp-id-block-build"], /, **_: Unpack[SnpIdBlockBuild]
    ) -> None: ...
    @overload
    def __call__(
        self, of: Literal["snp-id-block-check"], /, **_: Unpack[SnpIdBlockCheck]
    ) -> None: ...
    @overload
    def __call__(
        self, of: Literal["snp-id-block-show"], /, **_: Unpack[SnpIdBlockShow]
    ) -> None: ...
    @overload
    def __call__(self, of: Literal["snp-measure"], /, **_: Unpack[SnpMeasure]) -> None: ...
    @overload
    def __call__(self, of: Literal["snp-measure"], /, **_: Unpack[SnpMeasureTable]) -> None: ...
    @overload
    def __call__(self, of: Literal["snp-measure"], /, **_: Unpack[SnpMeasureManifest]) -> None: ...
    @overload
    def __call__(self, of: Literal["snp-release"], /, **_: Unpack[SnpRelease]) -> None: ...
    @overload
    def __call__(self, of: Literal["snp-show"], /, **_: Unpack[SnpShow]) -> None: ...
    @overload
    def __call__(self, of: Literal["snp-verify"], /, **_: Unpack[SnpVerify]) -> None: ...
    @overload
    def __call__(self, of: Literal["validate"], /, **_: Unpack[Validate]) -> None: ...
    @overload
    def __call__(self, of: Literal["verify"], /, **_: Unpack[Verify]) -> None: ...
    @overload
    def __call__(self, of: Literal["verify"], /, **_: Unpack[VerifyEach]) -> None: ...
    @overload
    def __call__(self, of: Literal["vmsa build"], /, **_: Unpack[VmsaBuild]) -> None: ...
    @overload
    def __call__(self, of: Literal["vmsa diff"], /, **_: Unpack[VmsaDiff]) -> None: ...
    @overload
    def __call__(self, of: Literal["vmsa show"], /, **_: Unpack[VmsaShow]) -> None: ...
