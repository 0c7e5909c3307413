"""scikit-learn's interface: estimators that are pairs of a model and a guide.

    LatentVariableModel      density and transformer: score_samples, transform, sample
    LatentAnomalyDetector    outlier detector: predict, decision_function
    LatentImputer            missing cells: transform
    LatentClassifier         classifier of rows of which some have no label (-1)

They work in ``Pipeline``, ``ColumnTransformer``, ``GridSearchCV`` and ``cross_val_score``. This
package needs scikit-learn: ``pip install 'ppl-vae[sklearn]'``.
"""

try:
    import sklearn  # noqa: F401
except ImportError as error:
    raise ImportError(
        "ppl_vae.sklearn: expected scikit-learn, which is not installed; pip install "
        "'ppl-vae[sklearn]'"
    ) from error

from ppl_vae.sklearn.classifier import LatentClassifier
from ppl_vae.sklearn.density import LatentVariableModel
from ppl_vae.sklearn.detector import LatentAnomalyDetector
from ppl_vae.sklearn.imputer import LatentImputer

__all__ = ["LatentAnomalyDetector", "LatentClassifier", "LatentImputer", "LatentVariableModel"]
