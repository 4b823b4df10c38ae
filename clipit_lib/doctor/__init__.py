"""`python -m clipit_lib doctor`: is everything here that a profile needs, and if not, what then?"""

from clipit_lib.doctor.command import diagnose as diagnose
from clipit_lib.doctor.command import main as main
from clipit_lib.doctor.command import summary as summary
from clipit_lib.doctor.finding import table as table
